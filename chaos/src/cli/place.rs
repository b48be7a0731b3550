//! Where a run lives: the directory that was named, or a temporary one.

use std::path::{Path, PathBuf};

use super::CliError;

/// Where a run lives.
pub(super) enum Place {
    Given(PathBuf),
    Temporary(tempfile::TempDir),
}

impl Place {
    pub(super) fn new(given: Option<&Path>) -> Result<Self, CliError> {
        match given {
            Some(path) => {
                let failed = |error| CliError::Io(format!("{}: {error}", path.display()));
                std::fs::create_dir_all(path).map_err(failed)?;
                if std::fs::read_dir(path).map_err(failed)?.next().is_some() {
                    let path = path.display();
                    return Err(CliError::Usage(format!("{path} is not empty: a run begins with new nodes, name another --dir")));
                }
                Ok(Self::Given(path.to_owned()))
            }
            None => {
                let made = tempfile::Builder::new().prefix("flotilla-chaos-").tempdir();
                Ok(Self::Temporary(made.map_err(|error| CliError::Io(format!("no temporary directory: {error}")))?))
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Given(path) => path,
            Self::Temporary(dir) => dir.path(),
        }
    }

    pub(super) fn keep(self) -> PathBuf {
        match self {
            Self::Given(path) => path,
            Self::Temporary(dir) => dir.keep(),
        }
    }
}
