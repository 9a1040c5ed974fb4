//! The terminal, for as long as the view lasts: its second screen, and the keys that are pressed. Ctrl-C stays the signal
//! that it is, so that whoever runs the view ends as ever. What is drawn, `scene` knows.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::sync::mpsc;

use super::scene::Scene;

/// How long keys are waited for before it is looked whether the view is still there.
const KEYS_EVERY: Duration = Duration::from_millis(100);

/// What somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// To leave.
    Leave,
    /// So many lines further down; up, where it is negative.
    Scroll(i32),
}

/// The terminal's second screen.
pub struct Screen<'a, W: Write> {
    terminal: Terminal<CrosstermBackend<&'a mut W>>,
    before: Option<Termios>,
    /// Where nobody can press a key, none is waited for in vain: the other side stays open.
    _keys: mpsc::Sender<Key>,
}

impl<'a, W: Write> Screen<'a, W> {
    /// Takes the screen; keys come from the other side, until the screen is left.
    pub fn enter(out: &'a mut W) -> io::Result<(Self, mpsc::Receiver<Key>)> {
        out.write_all(b"\x1b[?1049h\x1b[?25l\x1b[2J")?;
        out.flush()?;
        let before = listen()?;
        let (sender, keys) = mpsc::channel(16);
        let pressed = sender.clone();
        if before.is_some() {
            std::thread::spawn(move || while !pressed.is_closed() && hear(&pressed).is_ok() {});
        }
        let terminal = Terminal::new(CrosstermBackend::new(out))?;
        Ok((Self { terminal, before, _keys: sender }, keys))
    }

    /// Draws what is to be seen.
    pub fn draw(&mut self, scene: &mut Scene) -> io::Result<()> {
        self.terminal.draw(|frame| scene.draw(frame)).map(drop)
    }
}

impl<W: Write> Drop for Screen<'_, W> {
    fn drop(&mut self) {
        // A terminal that has gone needs nothing given back.
        if let Some(before) = &self.before {
            tcsetattr(io::stdin(), OptionalActions::Now, before).ok();
        }
        let out = self.terminal.backend_mut();
        out.write_all(b"\x1b[?25h\x1b[?1049l").ok();
        out.flush().ok();
    }
}

/// Lets single keys be read, unseen; gives what was so before. `None` where standard input is no terminal.
fn listen() -> io::Result<Option<Termios>> {
    if !io::stdin().is_terminal() {
        return Ok(None);
    }
    let before = tcgetattr(io::stdin())?;
    let mut modes = before.clone();
    modes.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
    tcsetattr(io::stdin(), OptionalActions::Now, &modes)?;
    Ok(Some(before))
}

fn hear(sender: &mpsc::Sender<Key>) -> io::Result<()> {
    if !event::poll(KEYS_EVERY)? {
        return Ok(());
    }
    let Event::Key(key) = event::read()? else { return Ok(()) };
    let meant = match key.code {
        _ if key.kind == KeyEventKind::Release => None,
        KeyCode::Char('q') | KeyCode::Esc => Some(Key::Leave),
        KeyCode::Down | KeyCode::Char('j') => Some(Key::Scroll(1)),
        KeyCode::Up | KeyCode::Char('k') => Some(Key::Scroll(-1)),
        KeyCode::PageDown | KeyCode::Char(' ') => Some(Key::Scroll(10)),
        KeyCode::PageUp => Some(Key::Scroll(-10)),
        KeyCode::Home => Some(Key::Scroll(i32::MIN)),
        KeyCode::End => Some(Key::Scroll(i32::MAX)),
        _ => None,
    };
    // A key that nobody waits for any more is pressed in vain.
    meant.map(|key| sender.blocking_send(key).ok());
    Ok(())
}
