//! What a token may allow.

use std::fmt;

/// One thing that a token may allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Create, change and delete the tenant's links.
    WriteLinks,
    /// Read and list the tenant's links.
    ReadLinks,
    /// Read the statistics of the tenant's links.
    ReadStats,
    /// Take down any tenant's link, and lift that again: the operator's own.
    TakeDownLinks,
}

impl Scope {
    pub const ALL: [Self; 4] = [
        Self::WriteLinks,
        Self::ReadLinks,
        Self::ReadStats,
        Self::TakeDownLinks,
    ];

    /// As tokens and people write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::WriteLinks => "links:write",
            Self::ReadLinks => "links:read",
            Self::ReadStats => "stats:read",
            Self::TakeDownLinks => "links:takedown",
        }
    }

    /// `None`: there is no scope of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }

    /// Its place in an API key. It must never change: keys that are out there hold it.
    const fn bit(self) -> u16 {
        match self {
            Self::WriteLinks => 1,
            Self::ReadLinks => 1 << 1,
            Self::ReadStats => 1 << 2,
            Self::TakeDownLinks => 1 << 3,
        }
    }
}

/// What one token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes(u16);

impl Scopes {
    /// Of the names between spaces, those that are scopes: as OAuth has it (RFC 6749,
    /// section 3.3), others mean something to somebody else.
    #[must_use]
    pub fn of_claim(names: &str) -> Self {
        names.split(' ').filter_map(Scope::parse).collect()
    }

    #[must_use]
    pub const fn allow(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those that are allowed, in the order of [`Scope::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL
            .into_iter()
            .filter(move |scope| self.allow(*scope))
    }

    pub(crate) const fn bits(self) -> u16 {
        self.0
    }

    /// A bit that means nothing here is one of a later release, and allows nothing.
    pub(crate) fn from_bits(bits: u16) -> Self {
        let known = |scope: &Scope| bits & scope.bit() != 0;
        Scope::ALL.into_iter().filter(known).collect()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        let bits = scopes.into_iter().fold(0, |bits, scope| bits | scope.bit());
        Self(bits)
    }
}

/// With spaces between, as in a claim.
impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, scope) in self.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { " " })?;
            f.write_str(scope.name())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_allows_the_scopes_that_it_names_and_no_others() {
        let scopes = Scopes::of_claim("openid links:read links:reader LINKS:WRITE stats:read");
        assert!(scopes.allow(Scope::ReadLinks) && scopes.allow(Scope::ReadStats));
        assert!(!scopes.allow(Scope::WriteLinks) && !scopes.allow(Scope::TakeDownLinks));
        assert_eq!(scopes.to_string(), "links:read stats:read");
        assert!(Scopes::of_claim("").is_empty());
    }

    #[test]
    fn the_places_in_keys_never_change() {
        let bits = Scope::ALL.map(Scope::bit);
        assert_eq!(bits, [1, 2, 4, 8]);
        assert_eq!(Scopes::from_bits(0xfff2).bits(), 2);
    }
}
