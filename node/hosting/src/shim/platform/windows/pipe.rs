//! The control socket as a named pipe. Names of pipes are global, so that this
//! one follows from the folder, and only the user of this process may open it.

use std::io;
use std::path::Path;
use std::time::Duration;

use homehost_runtime::OwnerOnly;
use tokio::net::windows::named_pipe::{
    ClientOptions, NamedPipeClient, NamedPipeServer, ServerOptions,
};
use windows_sys::Win32::Foundation::ERROR_PIPE_BUSY;

use super::super::super::files::RUN_DIR;

/// What the daemon talks to a shim through.
pub(crate) type Connection = NamedPipeClient;

/// Pause before a pipe is asked again whose instances are all taken.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// Name of the pipe of the server with this folder: a path may hold what a name
/// may not, and is longer.
fn pipe_name(run_dir: &Path) -> String {
    let path = std::path::absolute(run_dir).unwrap_or_else(|_| run_dir.to_owned());
    let path = path.to_string_lossy().to_lowercase();
    format!(r"\\.\pipe\homehost-shim-{}", &blake3::hash(path.as_bytes()).to_hex()[..32])
}

/// The shim's end of the control pipe.
#[derive(Debug)]
pub(in super::super::super) struct Listener {
    name: String,
    next: NamedPipeServer,
}

impl Listener {
    pub(in super::super::super) fn bind() -> io::Result<Self> {
        let name = pipe_name(super::run_dir());
        let next = instance(ServerOptions::new().first_pipe_instance(true), &name)?;
        Ok(Self { name, next })
    }

    /// # Cancel safety
    /// May be dropped and called again.
    pub(in super::super::super) async fn accept(&mut self) -> io::Result<NamedPipeServer> {
        self.next.connect().await?;
        let next = instance(&ServerOptions::new(), &self.name)?;
        Ok(std::mem::replace(&mut self.next, next))
    }
}

fn instance(options: &ServerOptions, name: &str) -> io::Result<NamedPipeServer> {
    let owner = OwnerOnly::new()?;
    let mut attributes = owner.attributes();
    #[expect(unsafe_code, reason = "by default a pipe can be read by everyone")]
    // SAFETY: the attributes and what they point to outlive the call.
    unsafe {
        options.create_with_security_attributes_raw(name, (&raw mut attributes).cast())
    }
}

/// Connects to the shim of the server with this folder.
pub(crate) async fn connect(dir: &Path) -> io::Result<Connection> {
    let name = pipe_name(&dir.join(RUN_DIR));
    loop {
        match ClientOptions::new().open(&name) {
            Err(error) if error.raw_os_error() == Some(ERROR_PIPE_BUSY.cast_signed()) => {
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            other => return other,
        }
    }
}
