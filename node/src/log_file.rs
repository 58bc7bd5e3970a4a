//! The log of a daemon without a terminal: one file, and the one before it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use homehost_runtime::files::{Access, make_folder};

/// Longest log file. There are two, so that the last half day of a busy node
/// is always there and a disk never fills up.
const BYTES_MAX: u64 = 8 * 1024 * 1024;

/// A file that is begun anew when it is long. What cannot be written is lost: a
/// node does not end because its log's disk is full.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    most: u64,
    /// Opened with the first line, so that a daemon that is refused because
    /// another one runs leaves that one's log alone.
    file: Option<File>,
    bytes: u64,
}

/// Where the log of a data folder's daemon is.
pub(crate) fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("logs").join("homehost.log")
}

impl LogFile {
    /// The log of a data folder.
    pub(crate) fn of(data_dir: &Path) -> Self {
        Self { path: path(data_dir), most: BYTES_MAX, file: None, bytes: 0 }
    }

    fn open(&mut self) -> io::Result<&mut File> {
        if let Some(folder) = self.path.parent() {
            make_folder(folder, Access::Private)?;
        }
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&self.path)?;
        self.bytes = file.metadata()?.len();
        Ok(self.file.insert(file))
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            self.open()?;
        }
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.most {
            // Windows renames no open file.
            self.file = None;
            fs::rename(&self.path, self.path.with_extension("log.1"))?;
            self.open()?;
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.append(line).is_err() {
            // Its folder may have been removed; the next line tries again.
            self.file = None;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_two_bounded_files_and_no_line_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogFile { most: 109, ..LogFile::of(dir.path()) };
        assert!(!path(dir.path()).exists(), "nothing was said yet");
        for n in 0..50 {
            log.write_all(format!("line {n:04}\n").as_bytes()).unwrap();
        }
        let old = path(dir.path()).with_extension("log.1");
        let files = [old.clone(), path(dir.path())].map(|path| fs::read_to_string(path).unwrap());
        assert!(files.iter().all(|text| text.len() <= 109));
        let lines: Vec<_> = files.iter().flat_map(|text| text.lines()).collect();
        assert_eq!(lines.last(), Some(&"line 0049"));
        assert!(lines.iter().all(|line| line.len() == 9), "{lines:?}");
        assert_eq!(fs::read_dir(old.parent().unwrap()).unwrap().count(), 2);
        // It goes on after a restart, and without its folder.
        drop(log);
        let mut log = LogFile { most: 109, ..LogFile::of(dir.path()) };
        log.write_all(b"again\n").unwrap();
        assert!(fs::read_to_string(path(dir.path())).unwrap().ends_with("0049\nagain\n"));
        if cfg!(unix) {
            fs::remove_dir_all(old.parent().unwrap()).unwrap();
            let mut log = LogFile { most: 109, ..LogFile::of(dir.path()) };
            log.write_all(b"anew\n").unwrap();
            assert_eq!(fs::read_to_string(path(dir.path())).unwrap(), "anew\n");
        }
    }
}
