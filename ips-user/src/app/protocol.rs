//! Application protocols by name.

use crate::decode::protocol;

macro_rules! protocols {
    ($($(#[$doc:meta])* $variant:ident $name:literal $($transport:ident)*,)*) => {
        /// A protocol that is recognised and taken apart.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum AppProtocol {
            $($(#[$doc])* $variant,)*
        }

        impl AppProtocol {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Its name in records and in `app-layer-protocol`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The numbers of the protocols that carry it.
            pub const fn transports(self) -> &'static [u8] {
                match self { $(Self::$variant => &[$(protocol::$transport),*],)* }
            }
        }
    };
}

protocols! {
    /// Domain names (RFC 1035).
    Dns "dns" TCP UDP,
    /// HTTP/1 and before (RFC 9112, RFC 1945).
    Http1 "http" TCP,
    /// RFC 8446 and before.
    Tls "tls" TCP,
    /// RFC 4253.
    Ssh "ssh" TCP,
    /// Mail (RFC 5321).
    Smtp "smtp" TCP,
}

impl AppProtocol {
    /// The type of its records.
    pub const fn record(self) -> &'static str {
        self.name()
    }

    /// Those that a rule means by this name: as its protocol, or as that of a keyword.
    pub fn named(name: &str) -> impl Iterator<Item = Self> {
        let all = Self::ALL.iter().copied();
        all.filter(move |protocol| protocol.is_named(name))
    }

    /// Whether a rule means it by this name.
    pub fn is_named(self, name: &str) -> bool {
        match self {
            Self::Http1 => matches!(name, "http" | "http1"),
            Self::Tls => matches!(name, "tls" | "ssl"),
            Self::Dns | Self::Ssh | Self::Smtp => name == self.name(),
        }
    }
}
