//! Pages of objects and uploads, and their aggregation.

use super::{Aggregation, Group, aggregate::Groups};
use crate::{Engine, buckets};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use strata_model::{Error, Fields, Result, Scope, filter::Filter, limits};
use strata_store::catalog::objects::{self, Object, Page, Selection, stats};

/// Which rows of a bucket, in which order, and how many.
#[derive(Debug, Clone)]
pub struct Listing {
    pub filter: Filter,
    pub search: Option<String>,
    /// Field and whether descending; `None` is creation order.
    pub sort: Option<(String, bool)>,
    pub limit: usize,
    pub offset: usize,
    /// Where an earlier page said the next one begins; wins over `offset`.
    pub cursor: Option<String>,
    pub include_total: bool,
}

impl Default for Listing {
    fn default() -> Self {
        Self {
            filter: Filter::all(),
            search: None,
            sort: None,
            limit: limits::MAX_PAGE,
            offset: 0,
            cursor: None,
            include_total: false,
        }
    }
}

/// One page.
#[derive(Debug, Clone)]
pub struct Rows<T> {
    pub rows: Vec<T>,
    /// `None` on the last page.
    pub next_cursor: Option<String>,
    pub total: Option<u64>,
}

/// Counts over all objects of a bucket.
#[derive(Debug, Clone, Default)]
pub struct ObjectSummary {
    pub objects: u64,
    pub blobs: u64,
    pub by_status: Vec<(String, u64)>,
}

/// What a cursor holds: the last row of its page, or how many rows precede the next one.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mark {
    After(String, String),
    Offset(usize),
}

impl Listing {
    pub(crate) fn selection(&self) -> Selection {
        Selection { filter: self.filter.clone(), search: self.search.clone() }
    }

    /// One row more than the page holds, to know whether another page follows.
    pub(crate) fn page(&self) -> Result<Page> {
        let mut page = Page { limit: self.limit + 1, offset: self.offset, after: None, sort: self.sort.clone() };
        let Some(cursor) = &self.cursor else { return Ok(page) };
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
        match bytes.and_then(|b| serde_json::from_slice(&b).ok()) {
            Some(Mark::After(time, id)) if self.sort.is_none() => {
                page.offset = 0;
                page.after = Some((time, id));
            }
            Some(Mark::Offset(offset)) => page.offset = offset,
            _ => return Err(Error::invalid("cursor", "is not one that this list gave")),
        }
        Ok(page)
    }

    /// Cuts the row that was read too much; `key` answers creation time and id.
    pub(crate) fn cut<T>(
        &self,
        mut rows: Vec<T>,
        page: &Page,
        total: Option<u64>,
        key: impl Fn(&T) -> (&str, &str),
    ) -> Result<Rows<T>> {
        let has_more = rows.len() > self.limit;
        rows.truncate(self.limit);
        let mark = match rows.last() {
            Some(last) if has_more && self.sort.is_none() => {
                let (time, id) = key(last);
                Some(Mark::After(time.to_owned(), id.to_owned()))
            }
            Some(_) if has_more => Some(Mark::Offset(page.offset + rows.len())),
            _ => None,
        };
        let encode = |mark| serde_json::to_vec(&mark).map(|json| URL_SAFE_NO_PAD.encode(json));
        let next_cursor = mark.map(encode).transpose().map_err(Error::internal)?;
        Ok(Rows { rows, next_cursor, total })
    }
}

impl Engine {
    pub async fn list_objects(&self, scope: &Scope, bucket: &str, listing: Listing) -> Result<Rows<Object>> {
        let (scope, bucket) = (scope.clone(), bucket.to_owned());
        self.catalog
            .read(move |c| {
                let bucket = buckets::find(c, &scope, &bucket)?;
                let (page, selection) = (listing.page()?, listing.selection());
                let rows = objects::list(c, &scope, bucket.id(), &selection, &page)?;
                let total = match listing.include_total {
                    true => Some(objects::count(c, &scope, bucket.id(), &selection)?),
                    false => None,
                };
                listing.cut(rows, &page, total, |o| (&o.created_at, &o.object_id))
            })
            .await
    }

    /// Counts over all objects of a bucket.
    pub async fn object_summary(&self, scope: &Scope, bucket: &str) -> Result<ObjectSummary> {
        let (scope, bucket) = (scope.clone(), bucket.to_owned());
        self.catalog
            .read(move |c| {
                let bucket = buckets::find(c, &scope, &bucket)?;
                let stats = stats::of_bucket(c, bucket.id())?;
                let by_status = stats::by_status(c, bucket.id())?;
                Ok(ObjectSummary { objects: stats.objects, blobs: stats.blobs, by_status })
            })
            .await
    }

    /// Groups the objects of a bucket; answers the groups and how many there were before the limit.
    pub async fn aggregate_objects(
        &self,
        scope: &Scope,
        bucket: &str,
        filter: Filter,
        aggregation: Aggregation,
    ) -> Result<(Vec<Group>, usize)> {
        let (scope, bucket) = (scope.clone(), bucket.to_owned());
        self.catalog
            .read(move |c| {
                let bucket = buckets::find(c, &scope, &bucket)?;
                let selection = Selection { filter, search: None };
                let mut groups = Groups::new(&aggregation);
                objects::each(c, &scope, bucket.id(), &selection, |object| groups.add(&view(object)))?;
                groups.finish()
            })
            .await
    }
}

/// An object as aggregations see it: its fields with its columns over them.
fn view(object: Object) -> Fields {
    let mut view = object.fields;
    let columns = [
        ("object_id", Some(object.object_id)),
        ("bucket_id", Some(object.bucket_id)),
        ("key_prefix", object.key_prefix),
        ("status", Some(object.status)),
        ("content_hash", Some(object.content_hash)),
        ("created_at", Some(object.created_at)),
        ("updated_at", Some(object.updated_at)),
    ];
    for (name, value) in columns {
        if let Some(value) = value {
            view.insert(name.into(), value.into());
        }
    }
    let blobs = object.blobs.iter().map(|b| serde_json::json!({
        "property": b.property, "type": b.blob_type, "size_bytes": b.size_bytes, "mime_type": b.media_type, "hash": b.hash,
    }));
    view.insert("blobs".into(), blobs.collect::<Vec<_>>().into());
    view
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_go_on_where_the_page_ended() {
        let listing = Listing { limit: 2, ..Listing::default() };
        let rows = vec![("t1", "a"), ("t2", "b"), ("t3", "c")];
        let cut = listing.cut(rows, &listing.page().unwrap(), None, |r| (r.0, r.1)).unwrap();
        assert_eq!(cut.rows.len(), 2);
        let next = Listing { cursor: cut.next_cursor, offset: 7, ..listing.clone() };
        let page = next.page().unwrap();
        assert_eq!((page.after, page.offset), (Some(("t2".into(), "b".into())), 0));
        let sorted = Listing { sort: Some(("x".into(), true)), cursor: next.cursor, ..listing.clone() };
        assert!(sorted.page().is_err(), "the cursor of another order");
        assert!(Listing { cursor: Some("!".into()), ..listing.clone() }.page().is_err());
        let last = listing.cut(vec![("t1", "a")], &listing.page().unwrap(), None, |r| (r.0, r.1)).unwrap();
        assert!(last.next_cursor.is_none());
    }
}
