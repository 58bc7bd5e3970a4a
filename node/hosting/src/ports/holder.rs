//! Who holds a port, for a sentence that helps.

use homehost_protocol::Transport;

/// The process that holds a port, as far as this system lets us see.
#[cfg(target_os = "linux")]
pub(super) fn find(port: u16, transport: Transport) -> String {
    let tables = ["", "6"].map(|family| format!("/proc/net/{transport}{family}"));
    let inodes: Vec<u64> = tables
        .iter()
        .flat_map(|table| sockets(&std::fs::read_to_string(table).unwrap_or_default(), port))
        .collect();
    process_with(&inodes).unwrap_or_else(|| "another program".into())
}

/// Elsewhere it takes rights that a daemon does not have.
#[cfg(not(target_os = "linux"))]
pub(super) fn find(_port: u16, _transport: Transport) -> String {
    "another program".into()
}

/// Inodes of the sockets in a table of proc(5) `/proc/net/{udp,tcp}{,6}` that
/// are bound to a port.
#[cfg(target_os = "linux")]
fn sockets(table: &str, port: u16) -> Vec<u64> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let (_, local) = fields.get(1)?.rsplit_once(':')?;
            (u16::from_str_radix(local, 16) == Ok(port)).then_some(())?;
            fields.get(9)?.parse().ok().filter(|inode| *inode != 0)
        })
        .collect()
}

#[cfg(target_os = "linux")]
fn process_with(inodes: &[u64]) -> Option<String> {
    let names: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let pid = process.file_name();
        let Some(pid) = pid.to_str().filter(|pid| pid.bytes().all(|byte| byte.is_ascii_digit()))
        else {
            continue;
        };
        let Ok(open) = std::fs::read_dir(process.path().join("fd")) else { continue };
        let holds = open.flatten().any(|file| {
            std::fs::read_link(file.path())
                .is_ok_and(|target| names.iter().any(|name| target.as_os_str() == name.as_str()))
        });
        if holds {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("the process {pid} ({})", name.trim()));
        }
    }
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read_and_rubbish_is_skipped() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             11: 0100007F:7530 00000000:0000 07 00000000:00000000 00:00000000 00000000  1000        0 4242 2 0 0\n\
             12: 00000000:7531 00000000:0000 07 00000000:00000000 00:00000000 00000000  1000        0 4243 2 0 0\n\
             garbage\n 13: x y z\n";
        assert_eq!(sockets(table, 30_000), [4242]);
        assert_eq!(sockets(table, 1), [0_u64; 0]);
    }
}
