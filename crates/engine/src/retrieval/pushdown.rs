//! Which stages need no documents of their own: those that come first and only narrow what a later one reads.

use super::conditions::FilterTemplate;
use super::plan::Plan;
use super::template::{Namespace, Variables};
use strata_model::filter::Filter;
use strata_model::{Fields, Result};

/// What the first stage that reads documents reads.
#[derive(Debug, Clone, PartialEq)]
pub struct Pushdown {
    /// Its place. The stages before it are answered with it.
    pub stage: usize,
    /// Whether it searches an index; otherwise it reads the catalog.
    pub searches: bool,
    /// What the documents satisfy, with the conditions of the stages before it; `None` where inputs are missing that it
    /// reads.
    pub filter: Option<Filter>,
}

impl Plan {
    /// How the collections are read, with these inputs; `None` for a plan without stages.
    pub fn pushdown(&self, inputs: &Fields) -> Result<Option<Pushdown>> {
        let variables = Variables::new(inputs.clone(), &Fields::new(), &Fields::new());
        let (mut filter, mut is_known) = (Filter::all(), true);
        for (place, planned) in self.stages.iter().enumerate() {
            let is_pushed = planned.stage.narrows() && self.search_follows(place);
            let before = planned.pre_filters.as_ref().filter(|pre| !pre.reads_documents());
            // What comes after a stage that reads is asked of what it has read.
            let after = planned.post_filters.as_ref().filter(|_| is_pushed);
            let mut read = [before, planned.stage.narrowing(), after].into_iter().flatten();
            is_known &= read.all(|template| has_all(template, inputs));
            if is_known {
                for template in [before, after].into_iter().flatten() {
                    filter = filter.and(template.resolve(&variables)?.0);
                }
                if planned.stage.narrows() {
                    filter = filter.and(planned.stage.narrowed(&variables)?);
                }
            }
            if !is_pushed {
                let searches = planned.stage.searches();
                return Ok(Some(Pushdown { stage: place, searches, filter: is_known.then_some(filter) }));
            }
        }
        Ok(None)
    }
}

/// Whether every input is there that a filter reads, and nothing but inputs is read.
fn has_all(filter: &FilterTemplate, inputs: &Fields) -> bool {
    filter.references().iter().all(|reference| match reference.namespace {
        Namespace::Input => reference.input().is_some_and(|name| inputs.contains_key(name)),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use crate::retrieval::{Plan, RetrieverSpec};
    use serde_json::{Value, json};
    use strata_model::filter::Filter;

    fn plan(stages: Value) -> Plan {
        let body = json!({"stages": stages, "input_schema": {"kind": {"type": "string"}}});
        Plan::parse(&RetrieverSpec::from_body(body.as_object().unwrap()).unwrap()).unwrap()
    }
    fn stage(id: &str, parameters: Value) -> Value {
        json!({"stage_name": id, "config": {"stage_id": id, "parameters": parameters}})
    }

    #[test]
    fn filters_before_a_search_are_part_of_it() {
        let kind = stage("attribute_filter", json!({"field": "kind", "operator": "eq", "value": "{{INPUT.kind}}"}));
        let price = stage("attribute_filter", json!({"field": "price", "operator": "lt", "value": 5}));
        let search = stage("feature_search", json!({"searches": [{"query": "x"}]}));
        let fields = |filter: &Filter| filter.fields().into_iter().map(str::to_owned).collect::<Vec<_>>();

        let made = plan(json!([kind, price, search]));
        let inputs = json!({"kind": "pie"}).as_object().cloned().unwrap();
        let pushed = made.pushdown(&inputs).unwrap().unwrap();
        assert_eq!((pushed.stage, pushed.searches), (2, true));
        assert_eq!(fields(&pushed.filter.unwrap()), ["kind", "price"]);
        assert!(made.pushdown(&Default::default()).unwrap().unwrap().filter.is_none(), "the input is missing");

        let mut with_post = price.clone();
        with_post["config"]["post_filters"] = json!({"field": "n", "operator": "gt", "value": 1});
        let pushed = plan(json!([with_post, search])).pushdown(&inputs).unwrap().unwrap();
        let mut both = fields(&pushed.filter.unwrap());
        both.sort();
        assert_eq!((pushed.stage, both), (1, vec!["n".to_owned(), "price".to_owned()]));

        let own = stage("attribute_filter", json!({"field": "kind", "operator": "eq", "value": "{{DOC.name}}"}));
        let pushed = plan(json!([own, search])).pushdown(&inputs).unwrap().unwrap();
        assert_eq!((pushed.stage, pushed.filter), (0, Some(Filter::all())), "each document is read to be asked");

        let reads =
            plan(json!([price, stage("limit", json!({"limit": 3})), search])).pushdown(&inputs).unwrap().unwrap();
        assert_eq!((reads.stage, reads.searches, fields(&reads.filter.unwrap())), (0, false, vec!["price".to_owned()]));
    }
}
