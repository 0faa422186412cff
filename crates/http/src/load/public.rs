//! Requests of the public: of what is published, and of files by signed URLs. Each counts for the address that it comes
//! from, before anything else is done, and for what is published, or the key for it, once that is known.

use super::{Seen, kind};
use crate::{App, error::ApiError, extract::Address};
use axum::{
    extract::{FromRequestParts, MatchedPath},
    http::request::Parts,
};
use strata_engine::published::{Credentials, Published, Use};
use strata_model::rates::Group;

/// What a request of the public pays with. An address that asked too often gets none.
pub(crate) struct Toll {
    seen: Seen,
    group: Group,
}

impl FromRequestParts<App> for Toll {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let Ok(Address(address)) = Address::from_request_parts(parts, app).await;
        let seen = parts.extensions.get::<Seen>().cloned().unwrap_or_default();
        let route = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
        let group = kind::group(&parts.method, route);
        seen.note(app.admit_address(address, group))?;
        Ok(Self { seen, group })
    }
}

impl Toll {
    /// Counts a request to what is published.
    pub async fn of(&self, app: &App, published: &Published) -> Result<(), ApiError> {
        self.seen.note(app.admit_public(published, None, self.group).await?)
    }

    /// Counts a request of a visitor who was let in: for the key that it came with or the publication, and by what the
    /// publication itself allows.
    pub async fn of_visitor(
        &self,
        app: &App,
        published: &Published,
        visitor: &Credentials,
        what: Use,
    ) -> Result<(), ApiError> {
        let key = app.retriever_key(visitor).await?;
        self.seen.note(app.admit_public(published, key.as_ref(), self.group).await?)?;
        self.seen.note(app.admit(published, what, visitor.address))
    }
}
