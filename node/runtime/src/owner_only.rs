//! Windows: a security descriptor that lets in the user of this process and the
//! system itself, and nobody else, whatever the folder above allows.
//!
//! An administrator can still take ownership, as root can read everything on
//! Unix.

use std::ffi::c_void;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::windows::fs::OpenOptionsExt as _;
use std::os::windows::io::{AsRawHandle as _, FromRawHandle as _, OwnedHandle};
use std::path::Path;
use std::ptr::{null, null_mut};

use windows_sys::Win32::Foundation::{
    ERROR_INVALID_FUNCTION, ERROR_NOT_SUPPORTED, ERROR_SUCCESS, GENERIC_READ, GENERIC_WRITE,
    LocalFree,
};
use windows_sys::Win32::Security::Authorization::{
    ConvertSidToStringSidW, ConvertStringSecurityDescriptorToSecurityDescriptorW, GetSecurityInfo,
    SDDL_REVISION_1, SE_FILE_OBJECT, SetSecurityInfo,
};
use windows_sys::Win32::Security::{
    ACL, DACL_SECURITY_INFORMATION, GetSecurityDescriptorControl, GetSecurityDescriptorDacl,
    GetTokenInformation, PROTECTED_DACL_SECURITY_INFORMATION, PSECURITY_DESCRIPTOR,
    SE_DACL_PROTECTED, SECURITY_ATTRIBUTES, SetKernelObjectSecurity, TOKEN_QUERY, TOKEN_USER,
    TokenUser,
};
use windows_sys::Win32::Storage::FileSystem::{
    FILE_FLAG_BACKUP_SEMANTICS, READ_CONTROL, WRITE_DAC,
};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, OpenProcessToken};

/// What is closed: its permissions, and that it inherits none.
const CLOSED: u32 = DACL_SECURITY_INFORMATION | PROTECTED_DACL_SECURITY_INFORMATION;

/// The longest security identifier with its header (`SECURITY_MAX_SID_SIZE` is 68).
const TOKEN_USER_BYTES: usize = 128;

/// Memory that the system gave and takes back.
#[derive(Debug)]
struct Local(*mut c_void);

impl Drop for Local {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "std does not know memory of the system")]
        // SAFETY: it came from a function that says to free it so, and is freed once.
        let _ = unsafe { LocalFree(self.0) };
    }
}

/// The descriptor; files, folders and pipes can be made with it.
#[derive(Debug)]
pub struct OwnerOnly {
    descriptor: Local,
}

impl OwnerOnly {
    /// The descriptor for the user of this process.
    ///
    /// # Errors
    /// What the system said.
    pub fn new() -> io::Result<Self> {
        let user = user_sid()?;
        // Protected; the user and the system have all rights, also to what is
        // made in a folder later on.
        let text = format!("D:P(A;OICI;FA;;;{user})(A;OICI;FA;;;SY)");
        let text = wide(text.encode_utf16());
        let mut descriptor: PSECURITY_DESCRIPTOR = null_mut();
        #[expect(unsafe_code, reason = "std has no security descriptors")]
        // SAFETY: the text ends in a zero; the last pointer may be null.
        let done = unsafe {
            ConvertStringSecurityDescriptorToSecurityDescriptorW(
                text.as_ptr(),
                SDDL_REVISION_1,
                &raw mut descriptor,
                null_mut(),
            )
        };
        if done == 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { descriptor: Local(descriptor) })
    }

    /// What the system takes when something is made. Valid as long as this is.
    pub fn attributes(&self) -> SECURITY_ATTRIBUTES {
        SECURITY_ATTRIBUTES {
            nLength: size_of::<SECURITY_ATTRIBUTES>() as u32,
            lpSecurityDescriptor: self.descriptor.0,
            bInheritHandle: 0,
        }
    }

    /// Makes a file that is closed before anyone else can have opened it.
    ///
    /// # Errors
    /// What the system said, also when there is a file of this name.
    pub(crate) fn create(&self, path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        // While it is open nobody else may open it, so that there is no moment
        // between its making and its closing.
        options.write(true).create_new(true).share_mode(0);
        options.access_mode(GENERIC_READ | GENERIC_WRITE | READ_CONTROL | WRITE_DAC);
        let file = options.open(path)?;
        self.give(&file, path).map(|()| file)
    }

    /// Makes a folder if it is missing; it is closed in either case.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn make_folder(&self, path: &Path) -> io::Result<()> {
        match fs::create_dir(path) {
            Ok(()) => self.give(&opened(path)?, path),
            Err(_) if path.is_dir() => self.close(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let above = path.parent().filter(|above| !above.as_os_str().is_empty());
                fs::create_dir_all(above.ok_or(error)?)?;
                fs::create_dir(path)?;
                self.give(&opened(path)?, path)
            }
            Err(error) => Err(error),
        }
    }

    /// Closes a file or folder that exists, and what is in it and inherits.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn close(&self, path: &Path) -> io::Result<()> {
        let file = opened(path)?;
        let acl = self.acl()?;
        // The system would go through everything below each time.
        if has(&file, acl)? {
            return Ok(());
        }
        #[expect(unsafe_code, reason = "std does not set permissions of Windows")]
        // SAFETY: the handle is open, and the list is part of `self`.
        let code = unsafe {
            let (none, acl) = (null_mut(), acl.cast_mut());
            SetSecurityInfo(file.as_raw_handle(), SE_FILE_OBJECT, CLOSED, none, none, acl, null())
        };
        checked(code, path)?;
        // Wine has now added what the folder above hands down.
        self.give(&file, path)
    }

    /// Gives the descriptor to one file or folder, and to nothing below it.
    fn give(&self, file: &File, path: &Path) -> io::Result<()> {
        #[expect(unsafe_code, reason = "std does not set permissions of Windows")]
        // SAFETY: the handle is open, and the descriptor is part of `self`.
        let done =
            unsafe { SetKernelObjectSecurity(file.as_raw_handle(), CLOSED, self.descriptor.0) };
        match (done, io::Error::last_os_error().raw_os_error()) {
            (0, Some(code)) => checked(code.cast_unsigned(), path),
            _ => Ok(()),
        }
    }

    fn acl(&self) -> io::Result<*const ACL> {
        dacl(self.descriptor.0)?.ok_or_else(|| io::Error::other("the descriptor has no list"))
    }
}

/// A file system without permissions, as on many USB sticks, is said so and used.
fn checked(code: u32, path: &Path) -> io::Result<()> {
    match code {
        ERROR_SUCCESS => Ok(()),
        ERROR_NOT_SUPPORTED | ERROR_INVALID_FUNCTION => {
            let path = path.display();
            tracing::warn!("the disk of {path} has no permissions: every user can read it");
            Ok(())
        }
        code => Err(io::Error::from_raw_os_error(code.cast_signed())),
    }
}

/// A file or folder, for its permissions. Opened by std, which knows long paths.
fn opened(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.access_mode(READ_CONTROL | WRITE_DAC).custom_flags(FILE_FLAG_BACKUP_SEMANTICS);
    options.open(path)
}

/// Whether a file or folder inherits nothing and has just this list.
fn has(file: &File, wanted: *const ACL) -> io::Result<bool> {
    let mut descriptor: PSECURITY_DESCRIPTOR = null_mut();
    #[expect(unsafe_code, reason = "std does not read permissions of Windows")]
    // SAFETY: the handle is open; what is not asked for may be null.
    let code = unsafe {
        let asked = DACL_SECURITY_INFORMATION;
        let (file, at) = (file.as_raw_handle(), &raw mut descriptor);
        let (no_sid, no_acl) = (null_mut(), null_mut());
        GetSecurityInfo(file, SE_FILE_OBJECT, asked, no_sid, no_sid, no_acl, no_acl, at)
    };
    if code != ERROR_SUCCESS {
        // Closing it will say why.
        return Ok(false);
    }
    let descriptor = Local(descriptor);
    let (mut control, mut revision) = (0, 0);
    #[expect(unsafe_code, reason = "std does not read permissions of Windows")]
    // SAFETY: the descriptor is valid until it is dropped below.
    let known = unsafe {
        GetSecurityDescriptorControl(descriptor.0, &raw mut control, &raw mut revision) != 0
    };
    let Some(found) = dacl(descriptor.0)? else { return Ok(false) };
    Ok(known && control & SE_DACL_PROTECTED != 0 && bytes(found) == bytes(wanted))
}

/// The list of who may do what in a descriptor.
fn dacl(descriptor: PSECURITY_DESCRIPTOR) -> io::Result<Option<*const ACL>> {
    let (mut present, mut acl, mut by_default) = (0, null_mut(), 0);
    #[expect(unsafe_code, reason = "std has no security descriptors")]
    // SAFETY: the descriptor is valid; the list stays part of it.
    let done = unsafe {
        GetSecurityDescriptorDacl(descriptor, &raw mut present, &raw mut acl, &raw mut by_default)
    };
    match done {
        0 => Err(io::Error::last_os_error()),
        _ => Ok((present != 0 && !acl.is_null()).then_some(acl.cast_const())),
    }
}

fn bytes<'a>(acl: *const ACL) -> &'a [u8] {
    #[expect(unsafe_code, reason = "a list is as long as it says")]
    // SAFETY: callers hold a valid list, and drop its descriptor later.
    unsafe {
        std::slice::from_raw_parts(acl.cast(), usize::from((*acl).AclSize))
    }
}

/// The security identifier of this process's user, as text.
fn user_sid() -> io::Result<String> {
    let mut token = null_mut();
    #[expect(unsafe_code, reason = "std does not know users of Windows")]
    // SAFETY: the pseudo handle is always valid.
    let done = unsafe { OpenProcessToken(GetCurrentProcess(), TOKEN_QUERY, &raw mut token) };
    if done == 0 {
        return Err(io::Error::last_os_error());
    }
    #[expect(unsafe_code, reason = "takes over the handle that was just made")]
    // SAFETY: the handle is valid and owned by nobody else.
    let token = unsafe { OwnedHandle::from_raw_handle(token) };
    // Of a type that is aligned as the structure.
    let mut user = [0_u64; TOKEN_USER_BYTES / 8];
    let mut length = 0;
    let mut text = null_mut();
    #[expect(unsafe_code, reason = "std does not know users of Windows")]
    // SAFETY: the buffer is as long as is said; the identifier points into it.
    let done = unsafe {
        GetTokenInformation(
            token.as_raw_handle(),
            TokenUser,
            user.as_mut_ptr().cast(),
            TOKEN_USER_BYTES as u32,
            &raw mut length,
        ) != 0
            && ConvertSidToStringSidW((*user.as_ptr().cast::<TOKEN_USER>()).User.Sid, &raw mut text)
                != 0
    };
    if !done {
        return Err(io::Error::last_os_error());
    }
    let memory = Local(text.cast());
    #[expect(unsafe_code, reason = "the length of a text of the system")]
    // SAFETY: the text ends in a zero and is freed afterwards.
    let units = unsafe {
        let length = (0..).take_while(|&at| *text.add(at) != 0).count();
        std::slice::from_raw_parts(text, length)
    };
    let sid = String::from_utf16_lossy(units);
    drop(memory);
    Ok(sid)
}

fn wide(units: impl Iterator<Item = u16>) -> Vec<u16> {
    units.chain([0]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_closed_is_known_as_closed_and_other_files_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let owner = OwnerOnly::new().unwrap();
        let closed = |name: &str| {
            has(&opened(&dir.path().join(name)).unwrap(), owner.acl().unwrap()).unwrap()
        };
        fs::write(dir.path().join("open"), "x").unwrap();
        assert!(!closed("open"));
        drop(owner.create(&dir.path().join("made")).unwrap());
        owner.close(&dir.path().join("open")).unwrap();
        owner.make_folder(&dir.path().join("folder")).unwrap();
        for name in ["made", "open", "folder"] {
            assert!(closed(name), "{name}");
        }
    }

    #[test]
    fn what_is_there_is_not_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let owner = OwnerOnly::new().unwrap();
        drop(owner.create(&dir.path().join("made")).unwrap());
        let again = owner.create(&dir.path().join("made")).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        for _ in 0..2 {
            owner.make_folder(&dir.path().join("a/b")).unwrap();
        }
        assert!(dir.path().join("a/b").is_dir());
    }

    #[test]
    fn nobody_else_opens_a_file_before_it_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let file = OwnerOnly::new().unwrap().create(&path).unwrap();
        assert!(File::open(&path).is_err());
        drop(file);
        File::open(&path).unwrap();
    }
}
