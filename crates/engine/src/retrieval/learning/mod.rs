//! Learned fusion: weights for the searches of a stage, from what users did with earlier results.
//!
//! Each search of each index is an arm with a Beta distribution. A reward on a document is shared among the arms that found
//! it, in proportion to `1 / (60 + rank)`, which is what each gave to the document's place by reciprocal rank fusion. An
//! arm's share counts for it, the rest against it; a penalty counts against the arms that found the document. Older
//! interactions count less, day by day.

mod posterior;
mod sampling;
mod weights;

use posterior::Rewarded;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// How weights are chosen from the distributions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// A sample of each distribution, its distance from the mean times the exploration.
    ThompsonSampling,
    /// With the exploration as the probability weights by chance, else the means.
    EpsilonGreedy,
    /// The mean and the exploration times `sqrt(2 ln(1 + all) / (1 + own))`, in counts of rewards.
    Ucb,
}

impl Algorithm {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ThompsonSampling => "thompson_sampling",
            Self::EpsilonGreedy => "epsilon_greedy",
            Self::Ucb => "ucb",
        }
    }
}

/// Settings of a stage.
#[derive(Debug, Clone, PartialEq)]
pub struct LearnedFusion {
    pub algorithm: Algorithm,
    /// Names of inputs whose values say whose interactions count first.
    pub context_features: Vec<String>,
    /// The same for those who have too few of their own.
    pub demographic_features: Vec<String>,
    /// Whether the demographic features are tried before everybody's interactions.
    pub is_hierarchical: bool,
    pub min_interactions: usize,
    /// Reward of each type of interaction; negative is a penalty.
    pub rewards: BTreeMap<String, f64>,
    pub exploration_bonus: f64,
    /// What the bonus is multiplied with for each interaction.
    pub exploration_decay: f64,
    pub exploration_floor: f64,
    pub prior_alpha: f64,
    pub prior_beta: f64,
    /// What a reward is multiplied with for each day of its age.
    pub decay_factor: f64,
    pub decay_window_days: f64,
    pub min_weight: f64,
    pub max_weight: f64,
    pub max_reward: f64,
    /// Percent of the users whose executions use what was learned.
    pub rollout_pct: f64,
    /// Whether weights are only told and not used.
    pub is_shadow: bool,
    pub timeout_ms: u64,
}

/// A document's place in one search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credit {
    pub stage: Arc<str>,
    pub search: usize,
    pub feature: Arc<str>,
    /// From 1.
    pub rank: u32,
}

/// An interaction as fusion learns from it.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Microseconds since the Unix epoch.
    pub at: i64,
    pub kinds: Vec<String>,
    /// Inputs of the execution that are texts, numbers or truths, as text.
    pub inputs: BTreeMap<String, String>,
    /// Empty where the execution was not remembered.
    pub found: Vec<Credit>,
    /// The feature that the caller says found the document.
    pub feature_uri: Option<String>,
}

/// The interactions with the results of a retriever, oldest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Feedback {
    pub events: Vec<Arc<Event>>,
}

/// A search in one index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arm {
    pub search: usize,
    pub feature: String,
}

/// Whose interactions were learned from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Personal,
    Segment,
    Global,
}

impl Level {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Personal => "personal",
            Self::Segment => "segment",
            Self::Global => "global",
        }
    }
}

/// What was learned for an execution.
#[derive(Debug, Clone, PartialEq)]
pub struct Learned {
    /// One for each arm; `None` where there are too few interactions.
    pub weights: Option<Vec<f64>>,
    pub level: Option<Level>,
    /// The values that chose the interactions, as `name=value`; `global` for everybody's.
    pub context_key: String,
    /// Interactions of the level that had a reward.
    pub interactions: usize,
    /// Those that had one and could not be credited to an arm.
    pub skipped: usize,
    pub exploration: f64,
    /// Whether chance or uncertainty chose another favourite than the means would.
    pub is_exploring: bool,
}

impl LearnedFusion {
    /// Weights for the arms of a stage. `inputs` are the execution's as texts, `now` is in microseconds; the same `chance`
    /// gives the same weights.
    pub fn learn(
        &self,
        stage: &str,
        arms: &[Arm],
        feedback: &Feedback,
        inputs: &BTreeMap<String, String>,
        now: i64,
        chance: u64,
    ) -> Learned {
        let (rewarded, skipped) = self.rewarded(stage, arms, feedback, now);
        let mut most = 0;
        for (level, names) in self.levels() {
            let Some(values) = values(names, inputs) else { continue };
            let own: Vec<&Rewarded<'_>> = rewarded
                .iter()
                .filter(|r| values.iter().all(|(name, value)| r.event.inputs.get(*name) == Some(value)))
                .collect();
            most = most.max(own.len());
            if own.len() < self.min_interactions {
                continue;
            }
            let posteriors = self.posteriors(arms.len(), &own, now);
            let exploration = self.exploration(own.len());
            let (weights, is_exploring) = self.weights(&posteriors, exploration, chance);
            return Learned {
                weights: Some(weights),
                level: Some(level),
                context_key: key(&values),
                interactions: own.len(),
                skipped,
                exploration,
                is_exploring,
            };
        }
        Learned {
            weights: None,
            level: None,
            context_key: "global".into(),
            interactions: most,
            skipped,
            exploration: self.exploration(most),
            is_exploring: false,
        }
    }

    /// Whether an execution belongs to the part that uses what was learned: the same user always or never does.
    pub fn is_rolled_out(&self, inputs: &BTreeMap<String, String>, chance: u64) -> bool {
        let named = self.context_features.iter().find_map(|name| inputs.get(name));
        let bucket = match inputs.get("user_id").or(named) {
            Some(user) => {
                let digest = strata_model::id::sha256_parts(&[user.as_bytes()]);
                u64::from(u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]))
            }
            None => chance,
        };
        (bucket % 10_000) as f64 / 100.0 < self.rollout_pct
    }

    /// Whose interactions count, the nearest first, with the inputs that tell.
    fn levels(&self) -> Vec<(Level, &[String])> {
        let mut levels: Vec<(Level, &[String])> = Vec::new();
        if !self.context_features.is_empty() {
            levels.push((Level::Personal, &self.context_features));
        }
        if self.is_hierarchical && !self.demographic_features.is_empty() {
            levels.push((Level::Segment, &self.demographic_features));
        }
        levels.push((Level::Global, &[]));
        levels
    }
}

/// The values of inputs; `None` where one is missing.
fn values<'n>(names: &'n [String], inputs: &BTreeMap<String, String>) -> Option<Vec<(&'n str, String)>> {
    names.iter().map(|name| Some((name.as_str(), inputs.get(name)?.clone()))).collect()
}

fn key(values: &[(&str, String)]) -> String {
    if values.is_empty() {
        return "global".to_owned();
    }
    values.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
}

/// A name for each arm: its feature, with the number of its search where another arm has the same.
pub fn names(arms: &[Arm]) -> Vec<String> {
    let mut seen: HashSet<&str> = HashSet::new();
    let features = arms.iter().map(|arm| (arm.feature.as_str(), arm.search));
    features
        .map(|(name, search)| if seen.insert(name) { name.to_owned() } else { format!("{name}#{search}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::times;

    fn config() -> LearnedFusion {
        LearnedFusion {
            algorithm: Algorithm::ThompsonSampling,
            context_features: vec!["user_id".into()],
            demographic_features: vec!["country".into()],
            is_hierarchical: true,
            min_interactions: 5,
            rewards: BTreeMap::from([("click".to_owned(), 1.0), ("skip".to_owned(), -1.0)]),
            exploration_bonus: 1.0,
            exploration_decay: 0.99,
            exploration_floor: 0.1,
            prior_alpha: 1.0,
            prior_beta: 1.0,
            decay_factor: 0.995,
            decay_window_days: 365.0,
            min_weight: 0.05,
            max_weight: 0.95,
            max_reward: 5.0,
            rollout_pct: 100.0,
            is_shadow: false,
            timeout_ms: 1_000,
        }
    }

    fn arms() -> Vec<Arm> {
        vec![Arm { search: 0, feature: "lexical".into() }, Arm { search: 1, feature: "mixpeek://e@v1/x".into() }]
    }

    fn event(kind: &str, found: &[(usize, u32)], user: &str) -> Arc<Event> {
        let credit = |(search, rank): &(usize, u32)| Credit {
            stage: "s".into(),
            search: *search,
            feature: arms()[*search].feature.as_str().into(),
            rank: *rank,
        };
        let inputs = [("user_id", user), ("country", "at")];
        Arc::new(Event {
            at: 0,
            kinds: vec![kind.into()],
            inputs: inputs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            found: found.iter().map(credit).collect(),
            feature_uri: None,
        })
    }

    fn inputs(user: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("user_id".to_owned(), user.to_owned()), ("country".to_owned(), "at".to_owned())])
    }

    fn learned(config: &LearnedFusion, events: Vec<Arc<Event>>, user: &str, chance: u64) -> Learned {
        config.learn("s", &arms(), &Feedback { events }, &inputs(user), 0, chance)
    }

    #[test]
    fn weight_goes_to_the_search_whose_documents_are_clicked() {
        let events: Vec<Arc<Event>> = (0..100).map(|_| event("click", &[(1, 1)], "ada")).collect();
        for algorithm in [Algorithm::ThompsonSampling, Algorithm::EpsilonGreedy, Algorithm::Ucb] {
            let config = LearnedFusion { algorithm, exploration_floor: 0.0, ..config() };
            let favours = |chance: &u64| {
                let weights = learned(&config, events.clone(), "ada", *chance).weights.unwrap();
                weights[1] > weights[0]
            };
            let right = (0..200).filter(favours).count();
            // A third of the executions of the greedy one explore after a hundred interactions, half of them the other way.
            assert!(right > 140, "{algorithm:?}: {right}");
        }
        let late: Vec<Arc<Event>> = (0..100).map(|_| event("click", &[(0, 1), (1, 200)], "ada")).collect();
        let weights = learned(&config(), late, "ada", 3).weights.unwrap();
        assert!(weights[0] > weights[1], "the better rank has the larger part: {weights:?}");
    }

    #[test]
    fn few_interactions_change_nothing_and_chance_repeats() {
        let few: Vec<Arc<Event>> = (0..4).map(|_| event("click", &[(1, 1)], "ada")).collect();
        let none = learned(&config(), few.clone(), "ada", 1);
        assert_eq!((none.weights, none.interactions), (None, 4));
        let enough: Vec<Arc<Event>> = few.into_iter().chain([event("click", &[(0, 1)], "ada")]).collect();
        let one = learned(&config(), enough.clone(), "ada", 9);
        assert_eq!(one, learned(&config(), enough.clone(), "ada", 9));
        assert_ne!(one.weights, learned(&config(), enough, "ada", 10).weights);
    }

    #[test]
    fn the_nearest_level_with_enough_interactions_counts() {
        let ada: Vec<Arc<Event>> = (0..5).map(|_| event("click", &[(1, 1)], "ada")).collect();
        let own = learned(&config(), ada.clone(), "ada", 1);
        assert_eq!((own.level, own.context_key.as_str()), (Some(Level::Personal), "user_id=ada"));
        let other = learned(&config(), ada.clone(), "bob", 1);
        assert_eq!((other.level, other.context_key.as_str()), (Some(Level::Segment), "country=at"));
        let global = LearnedFusion { is_hierarchical: false, ..config() };
        let all = learned(&global, ada.clone(), "bob", 1);
        assert_eq!((all.level, all.context_key.as_str()), (Some(Level::Global), "global"));
        let nameless = global.learn("s", &arms(), &Feedback { events: ada }, &BTreeMap::new(), 0, 1);
        assert_eq!(nameless.level, Some(Level::Global));
    }

    #[test]
    fn what_cannot_be_credited_is_counted() {
        let unknown = Arc::new(Event { found: Vec::new(), ..(*event("click", &[], "ada")).clone() });
        let named = Arc::new(Event { feature_uri: Some("lexical".into()), ..(*unknown).clone() });
        let nothing = event("view", &[(0, 1)], "ada");
        let config = LearnedFusion { min_interactions: 1, ..config() };
        let found = learned(&config, vec![unknown, named, nothing], "ada", 1);
        assert_eq!((found.interactions, found.skipped), (1, 1));
        assert!(learned(&config, vec![event("click", &[(0, 1)], "ada")], "ada", 1).weights.is_some());
        let elsewhere = config.learn(
            "another stage",
            &arms(),
            &Feedback { events: vec![event("click", &[(0, 1)], "ada")] },
            &inputs("ada"),
            0,
            1,
        );
        assert_eq!((elsewhere.weights, elsewhere.skipped), (None, 1));
    }

    #[test]
    fn posteriors_by_hand() {
        let config = LearnedFusion { decay_factor: 0.9, max_reward: 2.0, ..config() };
        let config =
            LearnedFusion { rewards: BTreeMap::from([("click".into(), 3.0), ("skip".into(), -1.0)]), ..config };
        let events = vec![event("click", &[(0, 1), (1, 1)], "ada"), event("skip", &[(1, 5)], "ada")];
        let feedback = Feedback { events };
        let day = times::DAY;
        let arms = arms();
        let (rewarded, _) = config.rewarded("s", &arms, &feedback, day);
        let posteriors = config.posteriors(2, &rewarded.iter().collect::<Vec<_>>(), day);
        // The reward of 3 is cut to 2, worth 1.8 a day later, and halved between the two.
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        near(posteriors[0].alpha, 1.9);
        near(posteriors[0].beta, 1.9);
        near(posteriors[1].alpha, 1.9);
        near(posteriors[1].beta, 1.0 + 0.9 + 0.9);
        let (none, _) = config.rewarded("s", &arms, &feedback, day * 400);
        assert!(none.is_empty(), "what is older than the window does not count");
    }

    #[test]
    fn a_user_is_always_in_the_rollout_or_never() {
        let half = LearnedFusion { rollout_pct: 50.0, ..config() };
        let is_in = |user: usize, chance| half.is_rolled_out(&inputs(&format!("u{user}")), chance);
        assert!((0..50).all(|user| is_in(user, 1) == is_in(user, 2)));
        let share = (0..1_000).filter(|user| is_in(*user, 1)).count();
        assert!((400..600).contains(&share), "{share}");
        let none = LearnedFusion { rollout_pct: 0.0, ..config() };
        assert!(!none.is_rolled_out(&BTreeMap::new(), 0) && config().is_rolled_out(&BTreeMap::new(), 9_999));
    }

    #[test]
    fn arms_of_one_feature_have_names_of_their_own() {
        let same = [Arm { search: 0, feature: "x".into() }, Arm { search: 1, feature: "x".into() }];
        assert_eq!(names(&same), ["x", "x#1"]);
    }
}
