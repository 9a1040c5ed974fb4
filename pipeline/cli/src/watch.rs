//! `jackpot watch`: the live view in the terminal, straight from `commits`: every amount was committed, has its time,
//! and is marked when nothing newer has come for a while. Around it stand what the stages do and what was refused.
//! Where standard output is no terminal, the amounts come a line at a time. Nothing is written to the log here.

pub mod around;
pub mod scene;
pub mod screen;

use std::io::{IsTerminal, Write};
use std::pin::pin;
use std::time::Duration;

use jackpot_core::log::jetstream::JetStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, interval, sleep, sleep_until};

use crate::exit;
use crate::live::{ASK_TIME_EVERY, Feed};
use crate::server::Server;
use around::Around;
use scene::Scene;
use screen::{Key, Screen};

/// How often the view is drawn anew.
const FRAME: Duration = Duration::from_millis(250);
/// How often a line is written where there is no terminal.
const LINE: Duration = Duration::from_secs(2);

/// Arguments of `watch`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub(crate) server: Server,
}

/// Shows the live view until it is interrupted, or left.
pub async fn run(log: &JetStream, out: &mut impl Write) -> anyhow::Result<()> {
    if std::io::stdout().is_terminal() {
        let (mut screen, mut keys) = Screen::enter(out)?;
        let around = Around::watch(log);
        return show(log, &mut keys, FRAME, |scene| {
            scene.around = around.now();
            screen.draw(scene)
        })
        .await;
    }
    let (_nobody, mut keys) = mpsc::channel(1);
    show(log, &mut keys, LINE, |scene| {
        if !scene.board.levels().is_empty() {
            writeln!(out, "{}", scene.line())?;
        }
        out.flush()
    })
    .await
}

async fn show(
    log: &JetStream,
    keys: &mut mpsc::Receiver<Key>,
    every: Duration,
    mut draw: impl FnMut(&mut Scene) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    let mut interrupted = pin!(tokio::signal::ctrl_c());
    let (mut scene, mut frames) = (Scene::default(), interval(every));
    loop {
        let following = async {
            let Err(error) = follow(log, &mut scene, keys, &mut frames, &mut draw).await else {
                return Ok(());
            };
            if error.is::<std::io::Error>() {
                return Err(error);
            }
            // A server that is away comes back; until then the view says that it is stale.
            scene.trouble = Some(exit::sentence(&error));
            draw(&mut scene)?;
            sleep(Duration::from_secs(1)).await;
            Ok(())
        };
        tokio::select! {
            biased;
            interrupted = &mut interrupted => return Ok(interrupted?),
            followed = following => followed?,
        }
        if scene.left {
            return Ok(());
        }
    }
}

/// Follows the commits until somebody leaves the view.
async fn follow(
    log: &JetStream,
    scene: &mut Scene,
    keys: &mut mpsc::Receiver<Key>,
    frames: &mut Interval,
    draw: &mut impl FnMut(&mut Scene) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    let (board, mut feed) = Feed::open(log).await?;
    (scene.board, scene.pulse, scene.trouble) = (board, Some(feed.pulse()), None);
    let mut asked = Instant::now();
    loop {
        tokio::select! {
            entry = feed.next() => scene.board.commit(&entry?)?,
            Some(key) = keys.recv() => {
                scene.press(key);
                if scene.left {
                    return Ok(());
                }
                draw(scene)?;
            }
            _ = frames.tick() => {
                scene.pulse = Some(feed.pulse());
                draw(scene)?;
            }
            () = sleep_until(asked + ASK_TIME_EVERY) => {
                feed.ask_time(log).await?;
                asked = Instant::now();
            }
        }
    }
}
