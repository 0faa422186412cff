//! Who asks, and for which namespace. Every catalog and index call takes a [`Scope`]; there is no other way to a row.

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
    /// Ids of the namespaces the key is limited to; `None` means all of the organization's.
    pub namespaces: Option<Vec<String>>,
}

impl Principal {
    pub fn may(&self, permission: Permission) -> bool {
        self.permissions.contains(&permission) || self.permissions.contains(&Permission::Admin)
    }
    pub fn may_enter(&self, namespace_id: &str) -> bool {
        self.namespaces.as_ref().is_none_or(|ids| ids.iter().any(|id| id == namespace_id))
    }
}

/// The capability to touch one namespace's rows. Made only by resolving a principal and a namespace in the catalog,
/// and by background work on a row that carries its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope {
    pub organization_id: String,
    pub namespace_id: String,
}
