//! The organization and its users.

use super::keys;
use crate::Engine;
use serde_json::Value;
use strata_model::{Error, Fields, Permission, Principal, Result, id};
use strata_store::catalog::{
    principals::{self, Organization, User},
    rusqlite::{Connection, Transaction},
};

/// What a user may do at most, through any key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Admin,
    Member,
    Viewer,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Member => "member",
            Self::Viewer => "viewer",
        }
    }
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Admin, Self::Member, Self::Viewer].into_iter().find(|role| role.as_str() == text)
    }
    pub(super) fn allows(self, permission: Permission) -> bool {
        match self {
            Self::Admin => true,
            Self::Member => permission != Permission::Admin,
            Self::Viewer => permission == Permission::Read,
        }
    }
}

/// Keys of a user that is not active do not work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserStatus {
    Active,
    Suspended,
    Pending,
}

impl UserStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Pending => "pending",
        }
    }
}

#[derive(Debug, Clone)]
pub struct NewUser {
    pub email: String,
    pub name: String,
    pub role: Role,
    pub status: UserStatus,
    /// `avatar_url`, `metadata`.
    pub body: Fields,
}

/// What is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct UserChange {
    pub name: Option<String>,
    pub role: Option<Role>,
    pub status: Option<UserStatus>,
    /// Keys of the body to set; null removes.
    pub body: Fields,
}

/// What is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct OrganizationChange {
    pub name: Option<String>,
    /// Keys of the body to set; null removes.
    pub body: Fields,
}

impl Engine {
    pub async fn organization(&self, principal: &Principal) -> Result<Organization> {
        let id = principal.organization_id.clone();
        self.catalog.read(move |connection| principals::organization(connection, &id)).await
    }

    pub async fn update_organization(&self, principal: &Principal, change: OrganizationChange) -> Result<Organization> {
        check_name("organization_name", change.name.as_deref(), 1, 200)?;
        let (id, now) = (principal.organization_id.clone(), self.catalog.now());
        // Limits of the organization are remembered with its keys.
        let change = self.change_keys(move |tx| {
            let mut organization = principals::organization(tx, &id)?;
            organization.name = change.name.unwrap_or(organization.name);
            merge(&mut organization.body, change.body);
            organization.updated_at = now;
            principals::put_organization(tx, &organization)?;
            Ok(organization)
        });
        change.await
    }

    /// Oldest first.
    pub async fn users(&self, principal: &Principal) -> Result<Vec<User>> {
        let id = principal.organization_id.clone();
        self.catalog.read(move |connection| principals::users(connection, &id)).await
    }

    /// By e-mail address or id.
    pub async fn user(&self, principal: &Principal, identifier: &str) -> Result<User> {
        let (id, identifier) = (principal.organization_id.clone(), identifier.to_owned());
        self.catalog.read(move |connection| principals::user(connection, &id, &identifier)).await
    }

    pub async fn create_user(&self, principal: &Principal, new: NewUser) -> Result<User> {
        check_name("user_name", Some(&new.name), 2, 100)?;
        check_email(&new.email)?;
        let now = self.catalog.now();
        let user = User {
            user_id: self.catalog.new_id(id::USER, 15),
            organization_id: principal.organization_id.clone(),
            email: new.email,
            name: new.name,
            role: new.role.as_str().into(),
            status: new.status.as_str().into(),
            body: without_nulls(new.body),
            created_at: now.clone(),
            updated_at: now,
        };
        let write = self.catalog.write(move |tx| principals::insert_user(tx, &user).map(|()| user));
        write.await
    }

    pub async fn update_user(&self, principal: &Principal, identifier: &str, change: UserChange) -> Result<User> {
        check_name("user_name", change.name.as_deref(), 2, 100)?;
        let (organization, identifier, now) =
            (principal.organization_id.clone(), identifier.to_owned(), self.catalog.now());
        let change = self.change_keys(move |tx| {
            let mut user = principals::user(tx, &organization, &identifier)?;
            user.name = change.name.unwrap_or(user.name);
            user.role = change.role.map_or(user.role, |role| role.as_str().into());
            user.status = change.status.map_or(user.status, |status| status.as_str().into());
            merge(&mut user.body, change.body);
            user.updated_at = now;
            principals::update_user(tx, &user)?;
            ensure_an_admin_is_left(tx, &organization)?;
            Ok(user)
        });
        change.await
    }

    /// Removes a user and their keys.
    pub async fn delete_user(&self, principal: &Principal, identifier: &str) -> Result<User> {
        let (organization, identifier) = (principal.organization_id.clone(), identifier.to_owned());
        let change = self.change_keys(move |tx| {
            let user = principals::user(tx, &organization, &identifier)?;
            principals::delete_user(tx, &organization, &user.email)?;
            ensure_an_admin_is_left(tx, &organization)?;
            Ok(user)
        });
        change.await
    }
}

/// Refuses the change that the transaction has made if it would lock everybody out: some key must remain that never
/// expires, may administer the whole organization and belongs to an active admin.
pub(super) fn ensure_an_admin_is_left(tx: &Transaction<'_>, organization_id: &str) -> Result<()> {
    if has_an_admin(tx, organization_id)? {
        return Ok(());
    }
    let message = "this would leave no key that administers the organization; make another one with `admin` first, without an expiry";
    Err(Error::Conflict(message.into()))
}

fn has_an_admin(connection: &Connection, organization_id: &str) -> Result<bool> {
    for user in principals::users(connection, organization_id)? {
        if user.role != Role::Admin.as_str() || user.status != UserStatus::Active.as_str() {
            continue;
        }
        let found = principals::keys(connection, &user.user_id)?.iter().any(|key| {
            key.status == keys::ACTIVE
                && key.expires_at.is_none()
                && key.scopes.is_empty()
                && key.permissions.contains(&Permission::Admin)
        });
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(crate) fn check_name(field: &str, name: Option<&str>, least: usize, most: usize) -> Result<()> {
    let Some(name) = name else { return Ok(()) };
    let length = name.chars().count();
    if (least..=most).contains(&length) && !name.chars().any(char::is_control) && name.trim() == name {
        return Ok(());
    }
    Err(Error::invalid(
        field,
        format!("must have {least} to {most} characters, none of them a control character, and no space at its ends"),
    ))
}

fn check_email(email: &str) -> Result<()> {
    let good = email
        .split_once('@')
        .is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty() && !domain.contains('@'));
    if good && email.len() <= 254 && !email.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Ok(());
    }
    Err(Error::invalid("email", "must be an e-mail address"))
}

/// Sets the keys of `change` in `body`; a null removes.
pub(crate) fn merge(body: &mut Fields, change: Fields) {
    for (key, value) in change {
        match value {
            Value::Null => drop(body.remove(&key)),
            value => drop(body.insert(key, value)),
        }
    }
}

pub(crate) fn without_nulls(fields: Fields) -> Fields {
    fields.into_iter().filter(|(_, value)| !value.is_null()).collect()
}
