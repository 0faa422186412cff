//! Why a document is, or is not, what searches find.

use super::{Show, Shown, gather, read::resolved};
use crate::Engine;
use serde_json::Value;
use strata_model::{Error, Result, Scope, schema::Schema};
use strata_store::catalog::{
    browse,
    lineage::{self, Touch},
};

#[derive(Debug, Clone)]
pub struct Diagnosis {
    pub shown: Shown,
    /// Derivations that read the document or what it was made from, newest first.
    pub touches: Vec<Touch>,
}

impl Engine {
    /// What there is to know about a document's way into searches.
    pub async fn diagnose_document(&self, scope: &Scope, collection: &str, document_id: &str) -> Result<Diagnosis> {
        let (of, collection, id) = (scope.clone(), collection.to_owned(), document_id.to_owned());
        let (gathered, touches) = self
            .catalog
            .read(move |connection| {
                let within = resolved(connection, &of, Some(&collection))?;
                let rows = browse::by_ids(connection, &of, within.as_deref(), std::slice::from_ref(&id))?;
                let Some((document, _)) = rows.first() else { return Err(Error::missing("document", id)) };
                let l = &document.lineage;
                let above = [&l.root_object_id, &l.source_document_id, &l.source_object_id];
                let inputs: Vec<String> = std::iter::once(id).chain(above.into_iter().flatten().cloned()).collect();
                let touches = lineage::touches(connection, &of, &inputs)?;
                Ok((gather(connection, &of, rows, &Show::default())?, touches))
            })
            .await?;
        let shown = self.shown(gathered)?.pop();
        Ok(Diagnosis { shown: shown.ok_or_else(|| Error::missing("document", document_id))?, touches })
    }

    /// Whether fields would satisfy a collection's `document_schema`, or its output schema where it has none: the faults.
    pub async fn validate_fields(
        &self,
        scope: &Scope,
        collection: &str,
        mut fields: strata_model::Fields,
    ) -> Result<Vec<strata_model::FieldError>> {
        let collection = self.collection(scope, collection).await?;
        let own = collection.kept.get("document_schema").filter(|s| s.get("properties").is_some_and(Value::is_object));
        let schema = Schema::parse(own.unwrap_or(&collection.output_schema), "document_schema")?;
        match schema.check(&mut fields, |_| false) {
            Ok(()) => Ok(Vec::new()),
            Err(Error::Invalid(faults)) => Ok(faults),
            Err(other) => Err(other),
        }
    }
}
