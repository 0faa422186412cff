//! Who asks, and for which namespace. Every catalog and index call takes a [`Scope`]; there is no other way to a row.

use crate::{acl::Reader, rates::Rates};
use serde::{Deserialize, Serialize};

/// What a key may do. `Admin` implies the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Permission {
    Read,
    Write,
    Delete,
    Admin,
}

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    pub organization_id: String,
    pub user_id: String,
    pub key_id: String,
    pub permissions: Vec<Permission>,
    /// The name under which access lists of documents know the key.
    pub principal_id: Option<String>,
    /// Ids of the namespaces the key is limited to; `None` means all of the organization's.
    pub namespaces: Option<Vec<String>>,
    /// What a key that is for one retriever is limited to: it executes that one and does nothing else.
    pub only: Option<OnlyRetriever>,
    /// Requests a minute that the key may send.
    pub rates: Rates,
}

/// The limits of a key that is for one retriever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnlyRetriever {
    pub retriever_id: String,
    /// Origins of the web pages that may send the key, such as `https://shop.example` or `https://*.shop.example`; empty
    /// means any, and callers that are no page.
    pub origins: Vec<String>,
}

impl OnlyRetriever {
    /// Whether a request with this `Origin` may send the key.
    pub fn takes_origin(&self, origin: Option<&str>) -> bool {
        let Some(origin) = origin else { return self.origins.is_empty() };
        let origin = origin.to_ascii_lowercase();
        self.origins.is_empty() || self.origins.iter().any(|allowed| origin_fits(allowed, &origin))
    }
}

/// Whether an origin is the one that is allowed, or a host below it where that begins with `*.`.
fn origin_fits(allowed: &str, origin: &str) -> bool {
    let Some((scheme, domain)) = allowed.split_once("://*.") else { return allowed == origin };
    let host = origin.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://"));
    let label = host.and_then(|host| host.strip_suffix(domain)).and_then(|rest| rest.strip_suffix('.'));
    label.is_some_and(|label| !label.is_empty())
}

impl Principal {
    pub fn may(&self, permission: Permission) -> bool {
        self.permissions.contains(&permission) || self.permissions.contains(&Permission::Admin)
    }
    pub fn may_enter(&self, namespace_id: &str) -> bool {
        self.namespaces.as_ref().is_none_or(|ids| ids.iter().any(|id| id == namespace_id))
    }
    /// Whose eyes the key reads documents with: its principal's, or an administrator's where it has none and may do all.
    pub fn reader(&self) -> Reader {
        match &self.principal_id {
            Some(name) => Reader::Principal(name.clone()),
            None if self.permissions.contains(&Permission::Admin) => Reader::All,
            None => Reader::Anyone,
        }
    }
}

/// The capability to touch one namespace's rows. Made only by resolving a principal and a namespace in the catalog, by
/// the public name of what is published from it, and by background work on a row that carries its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Scope {
    pub organization_id: String,
    pub namespace_id: String,
    /// Whose eyes its documents are read with. What reads documents in the catalog or searches the index takes it from
    /// here.
    pub reader: Reader,
}

impl Scope {
    /// A namespace as the server's own work sees it: with every document.
    pub fn whole(organization_id: impl Into<String>, namespace_id: impl Into<String>) -> Self {
        Self { organization_id: organization_id.into(), namespace_id: namespace_id.into(), reader: Reader::All }
    }

    /// The namespace as `reader` sees it.
    pub fn seen_by(self, reader: Reader) -> Self {
        Self { reader, ..self }
    }

    /// The namespace for the server's own work, whoever asked for that: derivations follow all documents.
    pub fn for_server(&self) -> Self {
        self.clone().seen_by(Reader::All)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(origins: &[&str], origin: Option<&str>) -> bool {
        let origins = origins.iter().map(|text| (*text).to_owned()).collect();
        OnlyRetriever { retriever_id: "ret_1".into(), origins }.takes_origin(origin)
    }

    #[test]
    fn an_origin_is_exact_or_below_a_starred_domain() {
        assert!(takes(&[], None) && takes(&[], Some("https://a.example")));
        let shop = ["https://shop.example", "https://*.shop.example:8443"];
        for good in ["https://shop.example", "HTTPS://Shop.example", "https://eu.shop.example:8443"] {
            assert!(takes(&shop, Some(good)), "{good}");
        }
        for wrong in [
            "http://shop.example",
            "https://shop.example.evil.example",
            "https://evilshop.example:8443",
            "https://.shop.example:8443",
            "https://eu.shop.example",
            "null",
        ] {
            assert!(!takes(&shop, Some(wrong)), "{wrong}");
        }
        assert!(!takes(&shop, None), "a key of web pages is not for programs that name none");
    }
}
