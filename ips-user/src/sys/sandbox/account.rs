//! The user that a process becomes.

use nix::unistd::{Gid, Uid, User};
use thiserror::Error;

/// A user and its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// User id, never root's.
    pub uid: Uid,
    /// Group id.
    pub gid: Gid,
}

/// Why a user cannot be used.
#[derive(Debug, Error)]
pub enum AccountError {
    /// Nobody has that name or number.
    #[error(
        "there is no user {0:?}: name one without login, such as \"nobody\", by name or number"
    )]
    Unknown(String),
    /// Root would keep what is to be given up.
    #[error("{0:?} is root: name a user without login, such as \"nobody\"")]
    Root(String),
    /// The user database cannot be read.
    #[error("looking up user {name:?}: {source}")]
    LookUp {
        /// The user.
        name: String,
        /// Why.
        source: nix::Error,
    },
}

impl Account {
    /// Looks up a user by name, or by number; a number need not have an entry in the user
    /// database, and is then its group's too.
    ///
    /// # Errors
    /// When there is no such user, or it is root.
    pub fn named(name: &str) -> Result<Self, AccountError> {
        let number = name.parse().ok().map(Uid::from_raw);
        let user = match number {
            Some(uid) => User::from_uid(uid),
            None => User::from_name(name),
        };
        let user = user.map_err(|source| AccountError::LookUp {
            name: name.to_owned(),
            source,
        })?;
        let account = match (user, number) {
            (Some(user), _) => Self {
                uid: user.uid,
                gid: user.gid,
            },
            (None, Some(uid)) => Self {
                uid,
                gid: Gid::from_raw(uid.as_raw()),
            },
            (None, None) => return Err(AccountError::Unknown(name.to_owned())),
        };
        // setresuid(2) reads the highest number as "leave it".
        let usable = account.uid.as_raw() != u32::MAX && account.gid.as_raw() != u32::MAX;
        match usable {
            _ if account.uid.is_root() => Err(AccountError::Root(name.to_owned())),
            true => Ok(account),
            false => Err(AccountError::Unknown(name.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_number_and_root_is_refused() {
        let nobody = Account::named("nobody").unwrap();
        assert_eq!(Account::named(&nobody.uid.to_string()).unwrap(), nobody);
        let unlisted = Account::named("4123456").unwrap();
        assert_eq!(unlisted.gid.as_raw(), 4_123_456);
        for (name, expected) in [
            ("sluice-has-no-such-user", "there is no user"),
            ("", "there is no user \"\""),
            ("4294967295", "there is no user"),
            ("root", "is root"),
            ("0", "is root"),
        ] {
            let error = Account::named(name).unwrap_err().to_string();
            assert!(error.contains(expected), "{name:?}: {error}");
        }
    }
}
