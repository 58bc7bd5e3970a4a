//! The job object that holds a game and its children, and what is done to all of
//! them at once.

use std::io;
use std::os::windows::io::{AsRawHandle as _, FromRawHandle as _, OwnedHandle};

use windows_sys::Win32::Foundation::{HWND, INVALID_HANDLE_VALUE, LPARAM};
use windows_sys::Win32::System::Diagnostics::ToolHelp::{
    CreateToolhelp32Snapshot, TH32CS_SNAPTHREAD, THREADENTRY32, Thread32First, Thread32Next,
};
use windows_sys::Win32::System::JobObjects::{
    AssignProcessToJobObject, CreateJobObjectW, IsProcessInJob, JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE,
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION, JobObjectExtendedLimitInformation,
    SetInformationJobObject, TerminateJobObject,
};
use windows_sys::Win32::System::Threading::{
    OpenProcess, OpenThread, PROCESS_QUERY_LIMITED_INFORMATION, ResumeThread, THREAD_SUSPEND_RESUME,
};
use windows_sys::Win32::UI::WindowsAndMessaging::{
    EnumWindows, GetWindowThreadProcessId, PostMessageW, WM_CLOSE,
};
use windows_sys::core::BOOL;

/// The code that a killed game ends with: what the system itself uses for Ctrl-C
/// would claim a clean end.
const KILLED: u32 = 1;

/// A job that ends with the last handle on it, which is this.
#[derive(Debug)]
pub(super) struct Job(OwnedHandle);

impl Job {
    pub(super) fn new() -> io::Result<Self> {
        #[expect(unsafe_code, reason = "std has no job objects; both pointers may be null")]
        // SAFETY: null asks for default security and no name.
        let handle = unsafe { CreateJobObjectW(std::ptr::null(), std::ptr::null()) };
        if handle.is_null() {
            return Err(io::Error::last_os_error());
        }
        let job = Self(owned(handle));
        let mut limits = JOBOBJECT_EXTENDED_LIMIT_INFORMATION::default();
        limits.BasicLimitInformation.LimitFlags = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE;
        let size = u32::try_from(size_of_val(&limits)).map_err(io::Error::other)?;
        #[expect(unsafe_code, reason = "std has no job objects")]
        // SAFETY: the pointer and size describe `limits`, which outlives the call.
        let done = unsafe {
            SetInformationJobObject(
                job.0.as_raw_handle(),
                JobObjectExtendedLimitInformation,
                (&raw const limits).cast(),
                size,
            )
        };
        if done == 0 { Err(io::Error::last_os_error()) } else { Ok(job) }
    }

    /// Takes a process. One that was made suspended has started no other yet,
    /// and what it starts later is in the job too.
    pub(super) fn take(&self, child: &std::process::Child) -> io::Result<()> {
        #[expect(unsafe_code, reason = "std has no job objects")]
        // SAFETY: both handles are open for as long as the borrows last.
        let done =
            unsafe { AssignProcessToJobObject(self.0.as_raw_handle(), child.as_raw_handle()) };
        if done == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    pub(super) fn terminate(&self) {
        #[expect(unsafe_code, reason = "std has no job objects")]
        // SAFETY: the handle is open for as long as the borrow lasts.
        let _ = unsafe { TerminateJobObject(self.0.as_raw_handle(), KILLED) };
    }

    /// Closes every window of the job, as a person would; whether there was one.
    /// A server with a window often hears nothing of Ctrl-C and Ctrl-Break.
    pub(super) fn close_windows(&self) -> bool {
        let mut closing = Closing { job: self, any: false };
        #[expect(unsafe_code, reason = "std has no windows")]
        // SAFETY: the callback is given the pointer before the call returns, and
        // nobody else has it.
        let _ = unsafe { EnumWindows(Some(close_own), (&raw mut closing) as LPARAM) };
        closing.any
    }

    fn has(&self, pid: u32) -> bool {
        #[expect(unsafe_code, reason = "std opens no processes")]
        // SAFETY: no pointers; a process that has gone gives null.
        let process = unsafe { OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, 0, pid) };
        if process.is_null() {
            return false;
        }
        let process = owned(process);
        let mut inside = 0;
        #[expect(unsafe_code, reason = "std has no job objects")]
        // SAFETY: both handles are open, and `inside` outlives the call.
        let known = unsafe {
            IsProcessInJob(process.as_raw_handle(), self.0.as_raw_handle(), &raw mut inside)
        };
        known != 0 && inside != 0
    }
}

struct Closing<'a> {
    job: &'a Job,
    any: bool,
}

#[expect(unsafe_code, reason = "called by the system, once for each window")]
unsafe extern "system" fn close_own(window: HWND, closing: LPARAM) -> BOOL {
    // SAFETY: it is the pointer that was given to EnumWindows, which still runs.
    let closing = unsafe { &mut *(closing as *mut Closing<'_>) };
    let mut pid = 0;
    // SAFETY: `pid` outlives the call; a window that has gone is an error.
    unsafe { GetWindowThreadProcessId(window, &raw mut pid) };
    if pid != 0 && closing.job.has(pid) {
        // SAFETY: no pointers; a window that has gone is an error.
        closing.any |= unsafe { PostMessageW(window, WM_CLOSE, 0, 0) } != 0;
    }
    // Go on.
    1
}

/// Lets a process run that was made suspended: its one thread.
pub(super) fn resume(pid: u32) -> io::Result<()> {
    #[expect(unsafe_code, reason = "std does not list threads")]
    // SAFETY: no pointers.
    let threads = unsafe { CreateToolhelp32Snapshot(TH32CS_SNAPTHREAD, 0) };
    if threads == INVALID_HANDLE_VALUE {
        return Err(io::Error::last_os_error());
    }
    let threads = owned(threads);
    let mut entry =
        THREADENTRY32 { dwSize: size_of::<THREADENTRY32>() as u32, ..THREADENTRY32::default() };
    #[expect(unsafe_code, reason = "std does not list threads")]
    // SAFETY: the list is open, and the entry says how long it is.
    let mut more = unsafe { Thread32First(threads.as_raw_handle(), &raw mut entry) };
    while more != 0 {
        if entry.th32OwnerProcessID == pid {
            return resume_thread(entry.th32ThreadID);
        }
        #[expect(unsafe_code, reason = "std does not list threads")]
        // SAFETY: as above.
        let next = unsafe { Thread32Next(threads.as_raw_handle(), &raw mut entry) };
        more = next;
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "it has no thread"))
}

fn resume_thread(id: u32) -> io::Result<()> {
    #[expect(unsafe_code, reason = "std opens no threads")]
    // SAFETY: no pointers; a thread that has gone gives null.
    let thread = unsafe { OpenThread(THREAD_SUSPEND_RESUME, 0, id) };
    if thread.is_null() {
        return Err(io::Error::last_os_error());
    }
    let thread = owned(thread);
    #[expect(unsafe_code, reason = "std resumes no threads")]
    // SAFETY: the handle is open.
    let times = unsafe { ResumeThread(thread.as_raw_handle()) };
    if times == u32::MAX { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn owned(handle: *mut std::ffi::c_void) -> OwnedHandle {
    #[expect(unsafe_code, reason = "takes over a handle that was just made")]
    // SAFETY: callers have just made it, have seen that it is valid, and forget it.
    unsafe {
        OwnedHandle::from_raw_handle(handle)
    }
}
