//! What the tests need besides cargo: packages of Debian where this is root,
//! and what no package has in folders under `target`.

use std::fs;
use std::path::Path;

use crate::run::{Done, Failed, command, fail, is_root, root, run, target, works};
use crate::windows;

/// Something that is installed with a package of Debian.
struct Need {
    package: &'static str,
    what: &'static str,
    is_there: fn() -> bool,
}

const NEEDS: &[Need] = &[
    Need {
        package: "minetest-server",
        what: "a real game server",
        is_there: || Path::new("/usr/lib/minetest/minetestserver").exists(),
    },
    Need { package: "wine64", what: "running the Windows programs", is_there: windows::has_wine },
    // Its scripts and libraries for both.
    Need { package: "wine", what: "running the Windows programs", is_there: windows::has_wine },
    WINDOWS_GCC,
    Need {
        package: "gcc",
        what: "C code of dependencies, and a clock that is fast",
        is_there: || works("cc", &["--version"]),
    },
    Need {
        package: "nodejs",
        what: "a game server and a libp2p from npm",
        is_there: || works("node", &["--version"]),
    },
    Need {
        package: "npm",
        what: "a game server and a libp2p from npm",
        is_there: || works("npm", &["--version"]),
    },
    Need {
        package: "python3-venv",
        what: "a reader of A2S from PyPI",
        is_there: || works("python3", &["-c", "import venv, ensurepip"]),
    },
    Need {
        package: "mount",
        what: "small file systems",
        is_there: || works("mount", &["--version"]),
    },
    Need {
        package: "faketime",
        what: "a machine whose clock is wrong",
        is_there: || works("faketime", &["--version"]),
    },
    Need {
        package: "iproute2",
        what: "namespaces for home networks",
        is_there: || works("ip", &["-V"]) && works("ip", &["netns"]),
    },
    Need {
        package: "nftables",
        what: "what home routers do",
        is_there: || works("nft", &["--version"]),
    },
    Need {
        package: "tcpdump",
        what: "seeing each packet that leaves a home",
        is_there: || works("tcpdump", &["--version"]),
    },
    Need {
        package: "dpkg",
        what: "unpacking a game server",
        is_there: || works("dpkg", &["--version"]),
    },
];

const WINDOWS_GCC: Need = Need {
    package: "gcc-mingw-w64-x86-64-posix",
    what: "C code of dependencies for Windows, and linking",
    is_there: || works(windows::CC, &["--version"]),
};

/// Packages of a game server that are unpacked and not installed: 41 MB of the
/// 365 MB on which they depend are enough for a server.
const QUAKE_PACKAGES: [&str; 3] = ["ioquake3-server", "openarena-server", "openarena-081-maps"];

/// What of them is used.
const QUAKE_FILES: [(&str, &str); 3] = [
    ("usr/lib/ioquake3/ioq3ded", "ioq3ded"),
    ("usr/lib/openarena-server/baseoa/qagamex86_64.so", "baseoa/qagamex86_64.so"),
    ("usr/share/games/openarena/baseoa/pak1-maps.pk3", "baseoa/pak1-maps.pk3"),
];

/// What answers UPnP in the home routers of the tests. Installed, it would be a
/// service of this machine; its libraries come with `nftables`.
const NET_PACKAGES: [&str; 1] = ["miniupnpd-nftables"];

/// What of it is used.
const NET_FILES: [(&str, &str); 1] = [("usr/sbin/miniupnpd", "miniupnpd")];

/// A clock for the programs that are tested.
const FAST_CLOCK: &str = "src/fast_clock.c";

/// Installs all of it, or says what to install.
pub(crate) fn setup() -> Done {
    if !cfg!(target_os = "linux") {
        return fail("the real games are set up on Debian only: use --only with other steps");
    }
    packages(NEEDS)?;
    windows::std_library()?;
    once(&target()?.join("wine"), "windows/bcryptprimitives.c", windows::prefix)?;
    let games = target()?.join("test-games");
    once(&games.join("minecraft"), "games/minecraft/package-lock.json", minecraft)?;
    once(&games.join("python"), "games/python/requirements.txt", python)?;
    once(&games.join("quake"), "xtask/src/setup.rs", quake)?;
    once(&target()?.join("test-js"), "interop/js/package-lock.json", js)?;
    nets()?;
    clock()?;
    println!("  all is there");
    Ok(())
}

/// Unpacks what the home routers of the tests run.
pub(crate) fn nets() -> Done {
    once(&target()?.join("test-net"), "xtask/src/setup.rs", net)
}

/// Builds what makes clocks fast.
pub(crate) fn clock() -> Done {
    once(&target()?.join("test-clock"), FAST_CLOCK, |folder| {
        let mut cc = command("cc", &["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-o"]);
        cc.arg(folder.join("fast_clock.so")).arg(root().join("tests").join(FAST_CLOCK));
        run(cc.arg("-ldl"))
    })
}

/// Installs what a cross build for Windows takes; on Windows cargo has it all.
pub(crate) fn cross() -> Done {
    if cfg!(windows) {
        return Ok(());
    }
    packages(&[WINDOWS_GCC])?;
    windows::std_library()
}

fn packages(needs: &[Need]) -> Done {
    let missing: Vec<&Need> = needs.iter().filter(|need| !(need.is_there)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for need in &missing {
        println!("  missing: {} ({})", need.package, need.what);
    }
    let names: Vec<&str> = missing.iter().map(|need| need.package).collect();
    let by_hand = format!("apt-get install --no-install-recommends {}", names.join(" "));
    if !is_root() || !works("apt-get", &["--version"]) {
        return fail(format!("install what is missing; on Debian, as root: {by_hand}"));
    }
    run(&mut command("apt-get", &["update", "-q"]))?;
    let mut install = command("apt-get", &["install", "-q", "-y", "--no-install-recommends"]);
    run(install.args(&names).env("DEBIAN_FRONTEND", "noninteractive"))?;
    match missing.iter().find(|need| !(need.is_there)()) {
        None => Ok(()),
        Some(need) => fail(format!("{} is installed and yet not found", need.package)),
    }
}

/// Fills a folder unless that was done before for the same `recipe`, a file of
/// `tests`. A folder that was filled by half is begun again.
fn once(folder: &Path, recipe: &str, fill: fn(&Path) -> Done) -> Done {
    let io = |error| Failed(format!("{}: {error}", folder.display()));
    let recipe = fs::read(root().join("tests").join(recipe)).map_err(io)?;
    let stamp = folder.with_extension("done");
    if fs::read(&stamp).is_ok_and(|done| done == recipe) && folder.exists() {
        return Ok(());
    }
    // They need not be there.
    let _ = fs::remove_file(&stamp);
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).map_err(io)?;
    fill(folder)?;
    fs::write(&stamp, recipe).map_err(io)
}

fn minecraft(folder: &Path) -> Done {
    npm("tests/games/minecraft", folder)
}

fn js(folder: &Path) -> Done {
    npm("tests/interop/js", folder)
}

/// Installs what a `package-lock.json` names, and runs nothing of it.
fn npm(recipe: &str, folder: &Path) -> Done {
    for name in ["package.json", "package-lock.json"] {
        let from = root().join(recipe).join(name);
        fs::copy(&from, folder.join(name))
            .map_err(|error| Failed(format!("{}: {error}", from.display())))?;
    }
    let args = ["ci", "--no-audit", "--no-fund", "--ignore-scripts"];
    run(command("npm", &args).current_dir(folder))
}

fn python(folder: &Path) -> Done {
    run(command("python3", &["-m", "venv"]).arg(folder))?;
    let pip = folder.join("bin/pip");
    let args = ["install", "--quiet", "--disable-pip-version-check", "-r"];
    let requirements = root().join("tests/games/python/requirements.txt");
    run(command(&pip.to_string_lossy(), &args).arg(requirements))
}

fn quake(folder: &Path) -> Done {
    unpack(&QUAKE_PACKAGES, folder, &QUAKE_FILES)?;
    // The engine insists on one and needs nothing in it.
    let config = folder.join("baseoa/default.cfg");
    fs::write(&config, "// nothing\n")
        .map_err(|error| Failed(format!("{}: {error}", config.display())))
}

fn net(folder: &Path) -> Done {
    unpack(&NET_PACKAGES, folder, &NET_FILES)
}

/// Puts some files of packages of Debian into a folder, and installs nothing.
fn unpack(names: &[&str], folder: &Path, files: &[(&str, &str)]) -> Done {
    let io = |error: std::io::Error| Failed(format!("{}: {error}", folder.display()));
    let packages = folder.with_extension("packages");
    let unpacked = packages.join("unpacked");
    let _ = fs::remove_dir_all(&packages);
    fs::create_dir_all(&unpacked).map_err(io)?;
    let download = || {
        let mut download = command("apt-get", &["download", "-q"]);
        run(download.args(names).current_dir(&packages))
    };
    if download().is_err() {
        if !is_root() {
            return fail("the lists of packages are old: run `apt-get update` as root");
        }
        run(&mut command("apt-get", &["update", "-q"]))?;
        download()?;
    }
    for entry in fs::read_dir(&packages).map_err(io)?.flatten() {
        if entry.path().extension().is_some_and(|end| end == "deb") {
            run(command("dpkg", &["-x"]).arg(entry.path()).arg(&unpacked))?;
        }
    }
    for (from, to) in files {
        let to = folder.join(to);
        fs::create_dir_all(to.parent().unwrap_or(folder)).map_err(io)?;
        fs::copy(unpacked.join(from), to).map_err(io)?;
    }
    fs::remove_dir_all(&packages).map_err(io)
}
