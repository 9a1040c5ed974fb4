//! `jackpot serve`: the live page, and the stream of committed states that it shows; `jackpot up` runs the same beside the
//! pipeline. Read-only by construction: it answers GET alone, and never appends to the log. One subscription serves all
//! readers (`audience`); a reader that is slow gets the present state later, never a growing queue.

pub mod audience;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jackpot_core::digest::Digest;
use jackpot_core::log::jetstream::JetStream;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

use crate::exit::Unusable;
use crate::live::{ASK_TIME_EVERY, Feed};
use crate::server::{CONNECT_MAX, Server};
use audience::Audience;

/// The page: one file, which loads nothing else.
const PAGE: &str = include_str!("serve/page.html");
/// Between two attempts to reach the broker.
const PAUSE: Duration = Duration::from_secs(1);
/// A reader that takes nothing for so long is cut off, in milliseconds.
const UNREAD_MAX_MS: u32 = 30_000;

/// Arguments of `serve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub(crate) server: Server,
    /// Where to listen; whoever can reach it sees every level and hit.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9590", env = "JACKPOT_LISTEN")]
    listen: SocketAddr,
}

/// Serves until it is told to stop.
pub async fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<()> {
    let mut terminated = signal(SignalKind::terminate()).context("cannot listen to signals")?;
    let listener = TcpListener::bind(args.listen).await.with_context(|| {
        Unusable::new(format!("--listen {} cannot be used; give another address or port", args.listen))
    })?;
    let log = args.server.connect(CONNECT_MAX).await?;
    writeln!(out, "page       http://{}/", listener.local_addr()?)?;
    out.flush()?;
    tokio::select! {
        biased;
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
        _ = terminated.recv() => Ok(()),
        served = serve(log, listener) => served,
    }
}

/// Serves the page of what is committed there. It ends only when it cannot go on; streams that are open end with it.
///
/// # Errors
/// When the listener fails.
pub async fn serve(log: JetStream, listener: TcpListener) -> anyhow::Result<()> {
    let audience = Arc::new(Audience::default());
    let listener = listener.tap_io(|stream| {
        // Where this is not possible, a reader that takes nothing holds its place for longer; nothing else depends on it.
        stream.set_nodelay(true).ok();
        rustix::net::sockopt::set_tcp_user_timeout(&*stream, UNREAD_MAX_MS).ok();
    });
    let served = axum::serve(listener, router(audience.clone()));
    tokio::select! {
        served = served => Ok(served.context("the page cannot be served")?),
        () = audience.clone().beat() => Ok(()),
        () = attend(&log, &audience) => Ok(()),
    }
}

/// Keeps the audience's board as it is committed, for ever. A broker that is away comes back; until then readers are told
/// how old what they see is.
async fn attend(log: &JetStream, audience: &Audience) {
    loop {
        let Err(error) = follow(log, audience).await;
        audience.trouble(&error);
        sleep(PAUSE).await;
    }
}

async fn follow(log: &JetStream, audience: &Audience) -> anyhow::Result<std::convert::Infallible> {
    let (board, mut feed) = Feed::open(log).await?;
    audience.begin(board, feed.pulse());
    let mut asked = Instant::now();
    loop {
        tokio::select! {
            entry = feed.next() => audience.commit(&entry?, feed.pulse())?,
            () = tokio::time::sleep_until(asked + ASK_TIME_EVERY) => {
                feed.ask_time(log).await?;
                audience.pulse(feed.pulse());
                asked = Instant::now();
            }
        }
    }
}

fn router(audience: Arc<Audience>) -> Router {
    Router::new()
        .route("/", get(show_page))
        .route("/events", get(show_events))
        .route("/jackpots.json", get(show_state))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(show_ready))
        .with_state(audience)
}

async fn show_page() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, policy()),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, PAGE)
}

/// What the page may do: run the script and show the style that are in it, and ask this server. Nothing else, from nowhere.
fn policy() -> HeaderValue {
    let hash = |element: &str| {
        let (open, close) = (format!("<{element}>"), format!("</{element}>"));
        let inside =
            PAGE.split_once(&open).and_then(|(_, rest)| rest.split_once(&close)).map(|(inside, _)| inside);
        let inside = inside.expect("the page has one of each");
        BASE64_STANDARD.encode(Digest::of(inside.as_bytes()).0)
    };
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash("script"),
        hash("style"),
    );
    HeaderValue::from_str(&policy).expect("base64 is plain ASCII")
}

async fn show_events(State(audience): State<Arc<Audience>>) -> Response {
    let Some(events) = audience.join() else {
        let why = "too many readers; try again later\n";
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "5")], why).into_response();
    };
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, Body::from_stream(events)).into_response()
}

async fn show_state(State(audience): State<Arc<Audience>>) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::from(audience.state())).into_response()
}

async fn show_ready(State(audience): State<Arc<Audience>>) -> Response {
    match audience.stale() {
        None => "ok\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why + "\n").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_asks_nobody_but_this_server() {
        for absent in ["http://", "https://", "src=", "@import", "url(", "style=\"", " onclick"] {
            assert!(!PAGE.contains(absent), "{absent}");
        }
        let policy = policy();
        let policy = policy.to_str().expect("text");
        assert!(!policy.contains("unsafe") && policy.matches("'sha256-").count() == 2, "{policy}");
    }
}
