//! Whether a stream leads to a terminal that understands escape sequences.
//!
//! Text itself needs nothing: to a console of Windows std writes UTF-16, to a
//! pipe or a file UTF-8, as everywhere.

use std::io::{self, IsTerminal as _};

/// Whether what is written to standard output may hold colours and the like.
pub fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal() && understands(Stream::Output)
}

/// Whether what is written to standard error may.
pub fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal() && understands(Stream::Error)
}

#[derive(Clone, Copy)]
enum Stream {
    Output,
    Error,
}

#[cfg(not(windows))]
fn understands(_stream: Stream) -> bool {
    true
}

/// A console of Windows has to be asked for it; before Windows 10 it refuses.
#[cfg(windows)]
fn understands(stream: Stream) -> bool {
    use std::os::windows::io::AsRawHandle as _;
    use windows_sys::Win32::System::Console::{
        ENABLE_VIRTUAL_TERMINAL_PROCESSING, GetConsoleMode, SetConsoleMode,
    };

    let handle = match stream {
        Stream::Output => io::stdout().as_raw_handle(),
        Stream::Error => io::stderr().as_raw_handle(),
    };
    let mut mode = 0;
    #[expect(unsafe_code, reason = "std does not set modes of a console")]
    // SAFETY: the handle is the process's own, and `mode` outlives the calls.
    unsafe {
        GetConsoleMode(handle, &raw mut mode) != 0
            && SetConsoleMode(handle, mode | ENABLE_VIRTUAL_TERMINAL_PROCESSING) != 0
    }
}
