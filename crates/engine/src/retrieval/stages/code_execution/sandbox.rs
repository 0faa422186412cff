//! JavaScript that a caller wrote, in an engine of its own: no files, no network, no modules, no timers, a bound of
//! time, of memory, of stack and of what comes out. Each run has a runtime and a thread that nothing else uses; the one
//! that waits for it never waits longer than the time limit and a moment.

use rquickjs::{
    CatchResultExt, CaughtError, Context, Ctx, Function, Module, Object, Runtime, Value as Script, context::intrinsic,
};
use serde_json::Value;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};
use strata_model::{Error, Result};
use tokio::sync::Semaphore;

/// What the code can use of the language. No `Proxy`: with it, an array could lie about its length.
type Language = (
    intrinsic::Eval,
    intrinsic::RegExpCompiler,
    intrinsic::RegExp,
    intrinsic::Json,
    intrinsic::Date,
    intrinsic::MapSet,
    intrinsic::TypedArrays,
    intrinsic::Promise,
);

/// Runs under way at once, in the whole server.
const PARALLEL: usize = 4;
/// How long one waits for its turn.
const TURN: Duration = Duration::from_secs(5);
/// How long a run may take to notice that its time is over.
const GRACE: Duration = Duration::from_millis(1_500);
const STACK_BYTES: usize = 512 << 10;
/// Room for that stack, and for what calls it.
const THREAD_STACK_BYTES: usize = 8 << 20;
/// Memory for reading code that does not run.
const CHECK_MEMORY_BYTES: usize = 32 << 20;
/// Longest message of an error that is told, in characters.
const MAX_MESSAGE_CHARS: usize = 500;
/// Memory that could not be freed, after which no code runs any more.
const MAX_LOST_BYTES: usize = 256 << 20;

static TURNS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(PARALLEL)));
static LOST_BYTES: AtomicUsize = AtomicUsize::new(0);

/// What the code is called with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Convention {
    /// `docs`, once; what it returns or leaves in the variable is a list with an item for each.
    Once,
    /// `doc`, for each; what it returns takes its place.
    Each,
}

impl Convention {
    /// The name of what differs between calls.
    fn parameter(self) -> &'static str {
        match self {
            Self::Once => "docs",
            Self::Each => "doc",
        }
    }
}

/// Code with its limits.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub code: String,
    pub convention: Convention,
    /// Holds the result where the code does not return it.
    pub result_variable: String,
    pub documents: Vec<Value>,
    pub input: Value,
    pub context: Value,
    pub env: Value,
    /// For one call.
    pub timeout: Duration,
    /// For all calls together.
    pub total: Duration,
    pub memory_bytes: usize,
    /// Of the results as JSON, together.
    pub max_output_bytes: usize,
}

/// What came of one call.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Returned {
    /// Nothing: `undefined` or `null`.
    Nothing,
    Value(Value),
}

/// What came of a job.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// One for each call, in order.
    pub calls: Vec<Result<Returned, String>>,
    pub log: Vec<String>,
}

/// Runs a job on a thread of its own. The error says what was wrong with the code as a whole.
pub(super) async fn run(job: Job) -> Result<Done> {
    if LOST_BYTES.load(Ordering::Relaxed) >= MAX_LOST_BYTES {
        return Err(Error::Unavailable("the script engine has lost too much memory; restart the server".into()));
    }
    let busy = || Error::Busy { message: "too much code runs at once; try again".into(), retry_after_seconds: 5 };
    let turn = tokio::time::timeout(TURN, TURNS.clone().acquire_owned()).await.map_err(|_| busy())?;
    let turn = turn.map_err(Error::internal)?;
    let stop = Arc::new(AtomicBool::new(false));
    // Whoever does not wait any more has the code stopped, too.
    let _stopper = Stopper(stop.clone());
    let (reply, answer) = tokio::sync::oneshot::channel();
    let patience = job.total + GRACE;
    let limit = job.total;
    let work = move || {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run_here(&job, &stop)));
        let outcome = outcome.unwrap_or_else(|_| Err("the script engine failed".into()));
        // Nobody listens any more where the time is over.
        drop(reply.send(outcome));
        drop(turn);
    };
    std::thread::Builder::new()
        .name("script".into())
        .stack_size(THREAD_STACK_BYTES)
        .spawn(work)
        .map_err(Error::internal)?;
    match tokio::time::timeout(patience, answer).await {
        Ok(Ok(Ok(done))) => Ok(done),
        Ok(Ok(Err(message))) => Err(Error::invalid("code", message)),
        Ok(Err(_)) => Err(Error::internal("a script's thread ended")),
        Err(_) => Err(Error::invalid("code", format!("did not end within {} ms", limit.as_millis()))),
    }
}

struct Stopper(Arc<AtomicBool>);

impl Drop for Stopper {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whether code can be understood, by the rules of strict code. Nothing of it runs; what it does shows only when it does.
pub(super) fn check(code: &str, convention: Convention, result_variable: &str) -> Result<(), String> {
    let (own, body) = (convention.parameter(), body(code, convention, result_variable));
    let text = format!("(function({own}, INPUT, CONTEXT, env) {{\n{body}\n}})");
    let checking = std::thread::Builder::new().name("script".into()).stack_size(THREAD_STACK_BYTES);
    let checking = checking.spawn(move || {
        let runtime = bounded(CHECK_MEMORY_BYTES)?;
        let outcome = Context::custom::<Language>(&runtime).map_err(none).and_then(|context| {
            context.with(|ctx| {
                let declared = Module::declare(ctx.clone(), "code", text).map(drop);
                understood(&ctx, declared.catch(&ctx))
            })
        });
        free(runtime);
        outcome
    });
    let checked = checking.map_err(|error| error.to_string())?.join();
    checked.unwrap_or_else(|_| Err("the script engine failed".into()))
}

fn none(error: rquickjs::Error) -> String {
    format!("the script engine did not start: {error}")
}

fn bounded(memory_bytes: usize) -> Result<Runtime, String> {
    let runtime = Runtime::new().map_err(none)?;
    runtime.set_memory_limit(memory_bytes);
    runtime.set_max_stack_size(STACK_BYTES);
    Ok(runtime)
}

/// An error of the compiler as it is told, with nothing of it left in the context.
fn understood<T>(ctx: &Ctx<'_>, outcome: Result<T, CaughtError<'_>>) -> Result<T, String> {
    outcome.map_err(|error| {
        let told = format!("cannot be understood: {}", message(&error));
        drop(ctx.catch());
        told
    })
}

/// When the calls under way must end.
struct Clock {
    started: Instant,
    /// Milliseconds after `started`.
    deadline: AtomicUsize,
}

impl Clock {
    fn allow(&self, time: Duration) {
        let end = self.started.elapsed() + time;
        self.deadline.store(usize::try_from(end.as_millis()).unwrap_or(usize::MAX), Ordering::Relaxed);
    }
    fn is_over(&self) -> bool {
        self.started.elapsed().as_millis() > self.deadline.load(Ordering::Relaxed) as u128
    }
}

fn run_here(job: &Job, stop: &Arc<AtomicBool>) -> Result<Done, String> {
    let runtime = bounded(job.memory_bytes)?;
    let clock = Arc::new(Clock { started: Instant::now(), deadline: AtomicUsize::new(0) });
    clock.allow(job.timeout);
    let (watched, given_up) = (clock.clone(), stop.clone());
    runtime.set_interrupt_handler(Some(Box::new(move || watched.is_over() || given_up.load(Ordering::Relaxed))));
    let outcome = match Context::custom::<Language>(&runtime) {
        Ok(context) => context.with(|ctx| calls(&ctx, job, &clock, stop)),
        Err(error) => Err(none(error)),
    };
    free(runtime);
    outcome
}

/// Frees a runtime, unless something of it was lost when its memory ran out: then freeing would end the process.
fn free(runtime: Runtime) {
    static NOTHING: LazyLock<i64> = LazyLock::new(|| {
        let counted = Runtime::new().map(|runtime| {
            drop(Context::custom::<Language>(&runtime));
            left(&runtime)
        });
        counted.unwrap_or(0)
    });
    if left(&runtime) <= *NOTHING {
        return drop(runtime);
    }
    let bytes = usize::try_from(runtime.memory_usage().malloc_size).unwrap_or(0);
    let lost_bytes = LOST_BYTES.fetch_add(bytes, Ordering::Relaxed) + bytes;
    tracing::warn!(lost_bytes, "a script left memory that cannot be freed");
    std::mem::forget(runtime);
}

fn left(runtime: &Runtime) -> i64 {
    runtime.run_gc();
    let usage = runtime.memory_usage();
    usage.obj_count + usage.shape_count + usage.js_func_count
}

fn calls(ctx: &Ctx<'_>, job: &Job, clock: &Clock, stop: &AtomicBool) -> Result<Done, String> {
    let console: Function<'_> = ctx.eval(include_str!("prelude.js")).map_err(|error| told(ctx, error, job, clock))?;
    let function = understood(ctx, compile(ctx, job).catch(ctx))?;
    let whole = Value::Array(job.documents.clone());
    let given: Vec<&Value> = match job.convention {
        Convention::Once => vec![&whole],
        Convention::Each => job.documents.iter().collect(),
    };
    let mut room = job.max_output_bytes;
    let mut done = Vec::with_capacity(given.len());
    for documents in given {
        let left = job.total.saturating_sub(clock.started.elapsed());
        if left.is_zero() || stop.load(Ordering::Relaxed) {
            done.push(Err(format!("the time of all documents together, {} ms, was over", job.total.as_millis())));
            continue;
        }
        clock.allow(job.timeout.min(left));
        let called = call(ctx, &function, documents, job, &mut room);
        done.push(called.map_err(|error| told(ctx, error, job, clock)).and_then(|outcome| outcome));
    }
    clock.allow(Duration::from_millis(100));
    // Where memory is over, there is no room for what was written either.
    let written: String = console.call(()).unwrap_or_default();
    // An exception that nobody has caught would keep everything alive.
    drop(ctx.catch());
    let log = written.split_terminator('\0').map(str::to_owned).collect();
    Ok(Done { calls: done, log })
}

/// The code as the body of a function, so that it can return.
fn compile<'js>(ctx: &Ctx<'js>, job: &Job) -> rquickjs::Result<Function<'js>> {
    let maker: Function<'js> = ctx.eval("Function")?;
    let body = body(&job.code, job.convention, &job.result_variable);
    maker.call((job.convention.parameter(), "INPUT", "CONTEXT", "env", body))
}

fn body(code: &str, convention: Convention, result_variable: &str) -> String {
    match convention {
        Convention::Once => {
            format!("{code}\n;return typeof {result_variable} === 'undefined' ? undefined : {result_variable};")
        }
        // Code that never returns changes the document that it was given.
        Convention::Each if !has_word(code, "return") => format!("{code}\n;return doc;"),
        Convention::Each => code.to_owned(),
    }
}

/// Whether a word stands in the code.
pub(super) fn has_word(code: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    code.match_indices(word)
        .any(|(at, _)| !code[..at].ends_with(is_part) && !code[at + word.len()..].starts_with(is_part))
}

/// Calls the function; the inner error is about what it returned.
fn call<'js>(
    ctx: &Ctx<'js>,
    function: &Function<'js>,
    documents: &Value,
    job: &Job,
    room: &mut usize,
) -> rquickjs::Result<Result<Returned, String>> {
    let value = |json: &Value| ctx.json_parse(json.to_string());
    let arguments = (value(documents)?, value(&job.input)?, value(&job.context)?, value(&job.env)?);
    let returned: Script<'js> = function.call(arguments)?;
    if returned.is_undefined() || returned.is_null() {
        return Ok(Ok(Returned::Nothing));
    }
    if returned.is_promise() {
        return Ok(Err("returned a promise; code runs to its end in one go".into()));
    }
    let Some(text) = ctx.json_stringify(returned)? else {
        return Ok(Err("returned what JSON cannot hold".into()));
    };
    let text = text.to_string()?;
    if text.len() > *room {
        return Ok(Err(format!("returned more than `max_output_size`, {} bytes", job.max_output_bytes)));
    }
    *room -= text.len();
    Ok(serde_json::from_str(&text).map(Returned::Value).map_err(|_| "returned JSON that nests too deep".to_owned()))
}

/// What went wrong, as the caller is told.
fn told(ctx: &Ctx<'_>, error: rquickjs::Error, job: &Job, clock: &Clock) -> String {
    // The handler would interrupt the reading of the message, too.
    let is_over = clock.is_over();
    clock.allow(Duration::from_millis(100));
    let caught = CaughtError::from_error(ctx, error);
    if is_over {
        return format!("did not end within {} ms", job.timeout.as_millis());
    }
    let message = message(&caught);
    match message.contains("out of memory") {
        true => format!("needs more than {} MiB of memory", job.memory_bytes >> 20),
        false => message,
    }
}

fn message(error: &CaughtError<'_>) -> String {
    let text = match error {
        CaughtError::Error(rquickjs::Error::Allocation) => "out of memory".to_owned(),
        CaughtError::Error(error) => error.to_string(),
        CaughtError::Exception(exception) => {
            let name = plain(exception.as_object(), "name");
            let message = plain(exception.as_object(), "message").unwrap_or_default();
            name.map_or_else(|| message.clone(), |name| format!("{name}: {message}"))
        }
        CaughtError::Value(value) => match value.as_string().and_then(|text| text.to_string().ok()) {
            Some(text) => text,
            None => "threw what is no error".into(),
        },
    };
    text.chars().take(MAX_MESSAGE_CHARS).collect()
}

/// A property, if it is text.
fn plain(object: &Object<'_>, name: &str) -> Option<String> {
    object.get::<_, Option<String>>(name).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn job(code: &str, convention: Convention) -> Job {
        Job {
            code: code.into(),
            convention,
            result_variable: "result".into(),
            documents: vec![json!({"n": 1, "t": "a"}), json!({"n": 2})],
            input: json!({"x": 5}),
            context: json!({}),
            env: json!({"KEY": "v"}),
            timeout: Duration::from_millis(300),
            total: Duration::from_millis(900),
            memory_bytes: 16 << 20,
            max_output_bytes: 10_000,
        }
    }
    fn done(job: Job) -> Done {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(job)).unwrap()
    }
    fn once(code: &str) -> Result<Returned, String> {
        done(job(code, Convention::Once)).calls.remove(0)
    }
    fn value(json: Value) -> Result<Returned, String> {
        Ok(Returned::Value(json))
    }

    #[test]
    fn code_gets_documents_and_gives_values() {
        assert_eq!(once("result = docs.map(d => d.n * INPUT.x)"), value(json!([5, 10])));
        assert_eq!(once("const result = docs.map(d => env.KEY + d.n);"), value(json!(["v1", "v2"])));
        assert_eq!(once("return docs.length"), value(json!(2)));
        assert_eq!(once("let x = 1 // no result"), Ok(Returned::Nothing));
        let each = |code: &str| done(job(code, Convention::Each)).calls;
        assert_eq!(
            each("doc.m = doc.n + 1"),
            [value(json!({"n": 1, "t": "a", "m": 2})), value(json!({"n": 2, "m": 3}))]
        );
        assert_eq!(
            each("if (doc.n > 1) return {...doc, big: true}"),
            [Ok(Returned::Nothing), value(json!({"n": 2, "big": true}))]
        );
        assert_eq!(each("return null"), [Ok(Returned::Nothing), Ok(Returned::Nothing)]);
        let one_fails = each("return doc.t.length");
        assert_eq!(one_fails[0], value(json!(1)));
        assert!(one_fails[1].as_ref().unwrap_err().starts_with("TypeError: "), "{one_fails:?}");
    }

    #[test]
    fn the_console_is_kept_and_bounded() {
        let log = done(job("console.log('a', {b: 1}, undefined); console.warn(3)", Convention::Once)).log;
        assert_eq!(log, ["a {\"b\":1} undefined", "3"]);
        let log = done(job("for (let i = 0; i < 1e4; i++) console.log('x'.repeat(1e3))", Convention::Once)).log;
        assert_eq!((log.len(), log[0].len()), (100, 500));
    }

    #[test]
    fn there_is_nothing_to_reach_the_outside_with() {
        for name in [
            "require",
            "process",
            "fetch",
            "setTimeout",
            "XMLHttpRequest",
            "Deno",
            "std",
            "os",
            "Proxy",
            "Atomics",
            "SharedArrayBuffer",
            "WebAssembly",
        ] {
            assert_eq!(once(&format!("return typeof {name}")), value(json!("undefined")), "{name}");
        }
        assert!(once("import('fs')").is_ok_and(|returned| returned == Returned::Nothing));
        assert!(check("import fs from 'fs'", Convention::Each, "result").is_err());
        assert_eq!(once("return (async () => 1)()"), Err("returned a promise; code runs to its end in one go".into()));
    }

    #[test]
    fn code_that_cannot_be_understood_is_told() {
        assert!(check("return doc", Convention::Each, "result").is_ok());
        for code in ["return (", "let let = 1", "\u{0}"] {
            assert!(check(code, Convention::Each, "result").unwrap_err().contains("cannot be understood"), "{code}");
        }
        assert!(check("import fs from 'fs'", Convention::Each, "result").is_err());
    }

    #[test]
    fn code_may_name_its_variables_as_the_other_convention_s_parameter() {
        assert_eq!(check("const docs = [doc]; return docs", Convention::Each, "result"), Ok(()));
        assert_eq!(check("const doc = docs[0]; return [doc]", Convention::Once, "result"), Ok(()));
    }

    #[test]
    fn code_does_not_run_when_it_is_checked() {
        let started = Instant::now();
        for code in ["}), (() => { for (;;); })(), (function() {", "}); for (;;); (function() {"] {
            assert_eq!(check(code, Convention::Each, "result"), Ok(()), "{code}");
        }
        assert!(started.elapsed() < Duration::from_millis(900), "it took {:?}", started.elapsed());
    }

    /// Each of these must end, with an error or a value, and leave the process as it was.
    #[test]
    fn hostile_code_is_stopped() {
        let started = Instant::now();
        for code in [
            // Time.
            "while (true) {}",
            "for (;;) { try { for (;;) {} } catch {} }",
            "try { while (true) {} } finally { while (true) {} }",
            "const f = () => f(); for (;;) { try { f() } catch {} }",
            "return /^(a+)+$/.test('a'.repeat(40) + 'b')",
            "return /(x+x+)+y/.test('x'.repeat(10000))",
            "return new Array(4294967295).indexOf(1)",
            "return [].concat(new Array(4294967295))",
            "return Array.prototype.indexOf.call({length: 2 ** 53 - 1}, 1)",
            "const a = []; a.length = 4294967295; a.sort(); return a.length",
            "const a = []; a.length = 4294967295; return a + ''",
            "return 'a'.repeat(5e6).indexOf('a'.repeat(2e6) + 'b')",
            "let a = 2n ** 900000n; for (;;) a = a * a % (2n ** 900001n)",
            "const o = {}; for (let i = 0; ; i++) o['k' + i % 1000] = i",
            "function* g() { for (;;) yield 1 } for (const x of g()) {}",
            "return {toJSON() { for (;;) {} }}",
            "return Object.defineProperty({}, 'x', {enumerable: true, get() { for (;;) {} }})",
            "for (;;) console.log('x')",
            "const e = new Error('x'); Object.defineProperty(e, 'message', {get() { for (;;) {} }}); throw e",
            // Memory.
            "const a = []; for (;;) a.push(new Array(1000).fill(1))",
            "let s = 'x'; for (;;) s += s",
            "return 'x'.repeat(1e9)",
            "return new Uint8Array(1e9).length",
            "let o = {}; for (;;) o = {o, a: [1, 2, 3]}",
            "const m = new Map(); for (let i = 0; ; i++) m.set(i, {i})",
            "const a = []; for (;;) { try { a.push('y'.repeat(1e5)) } catch { a.push({}) } }",
            "const f = []; for (;;) f.push((x => () => x)(f))",
            "for (;;) { try { let s = 'x'; for (;;) s += s } catch {} }",
            "return JSON.parse('['.repeat(1e6))",
            "return Array.from({length: 4294967295}, (_, i) => i)",
            "new Function('return ' + '1+'.repeat(1e6) + '1')()",
            // Stack.
            "function f() { return f() + 1 } return f()",
            "let o = []; for (let i = 0; i < 1e5; i++) o = [o]; return o",
            "let o = []; for (let i = 0; i < 1e5; i++) o = [o]; return JSON.stringify(o).length",
            "return eval('('.repeat(1e5) + ')'.repeat(1e5))",
            "return new RegExp('('.repeat(1e5) + ')'.repeat(1e5))",
            "class A { get x() { return this.x } } return new A().x",
            "let o = {}; let p = o; for (let i = 0; i < 1e5; i++) { p = Object.create(p) } return p.zzz === undefined",
            // The language turned against its host.
            "Object.prototype.toJSON = () => { throw 1 }; return {}",
            "Array.prototype.map = null; JSON.stringify = null; Object.prototype.x = 1; return docs",
            "globalThis.Function = null; Function.prototype.call = () => { throw 1 }; return 1",
            "Object.freeze(globalThis); return globalThis",
            "const o = {}; o.o = o; return o",
            "throw {get message() { throw 1 }}",
            "throw null",
            "return Symbol('x')",
            "return 10n",
            "return () => 1",
            "return '\\ud800'",
            "return '\\u0000'",
            "return [NaN, Infinity, -0, undefined]",
        ] {
            let before = Instant::now();
            let outcome = done(job(code, Convention::Once));
            assert_eq!(outcome.calls.len(), 1, "{code}");
            assert!(before.elapsed() < Duration::from_secs(5), "{code} took {:?}", before.elapsed());
        }
        println!("{:?}", started.elapsed());
        assert_eq!(LOST_BYTES.load(Ordering::Relaxed), 0, "everything was freed");
        assert_eq!(once("return 1 + 1"), value(json!(2)), "the next one is as if nothing had been");
    }

    #[test]
    fn limits_are_named() {
        assert_eq!(once("while (true) {}"), Err("did not end within 300 ms".into()));
        assert_eq!(once("return 'x'.repeat(1e8).length"), Err("needs more than 16 MiB of memory".into()));
        assert!(once("return 'x'.repeat(10001)").unwrap_err().contains("max_output_size"));
        assert!(once("function f() { return f() + 1 } return f()").unwrap_err().contains("stack"));
        let each = done(job("while (doc.n === 1) {} return doc.n", Convention::Each)).calls;
        assert_eq!(
            each,
            [Err("did not end within 300 ms".into()), value(json!(2))],
            "the limit is each document's own"
        );
        let mut many = job("const end = Date.now() + 250; while (Date.now() < end) {} return 1", Convention::Each);
        many.documents = vec![json!({}); 8];
        let calls = done(many).calls;
        assert_eq!(calls[0], value(json!(1)));
        assert!(calls[7].as_ref().unwrap_err().contains("together"), "{calls:?}");
    }
}
