//! Invitations for a person: a string, a code for a camera, and what came of it.

use std::time::{Duration, Instant};

use homehost_api::{AddressState, Invitation, Peer};
use homehost_protocol::Invite;
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use terminal_size::{Width, terminal_size};

use super::output::{Cell, Colour};
use super::{Client, Output};
use crate::exit::Failure;

/// How long a person is kept waiting for somebody to answer. A dial takes ten
/// seconds at most.
const ANSWER: Duration = Duration::from_secs(12);

/// How often it is looked whether somebody has.
const LOOK: Duration = Duration::from_millis(200);

/// What is shown of an invitation; to a pipe, the string alone.
pub(super) fn text(invitation: &Invitation, output: &Output) -> String {
    let mut text = String::new();
    if output.is_terminal() {
        let columns = terminal_size().map(|(Width(columns), _)| columns.into());
        match code(&invitation.text, columns) {
            Ok(code) => {
                text.push_str(&output.black_on_white(&code));
                text.push('\n');
            }
            Err(Some(columns)) => output.hint(&format!(
                "a QR code of it takes {columns} columns: make the terminal wider, and run this \
                 again, to have one"
            )),
            Err(None) => {}
        }
        let rows: Vec<_> = invitation
            .addresses
            .iter()
            .map(|address| {
                let reached = Cell::of(&address.reached);
                let reached = match address.state {
                    AddressState::Confirmed => reached.colour(Colour::Good),
                    AddressState::Refuted => reached.colour(Colour::Bad),
                    AddressState::Unknown => reached,
                };
                let node = match address.node.as_str() {
                    "this" => "this node",
                    "relay" => "its relay",
                    _ => "bootstrap node",
                };
                vec![Cell::of(&address.address), Cell::of(node), reached]
            })
            .collect();
        text.push_str(&output.table(&["ADDRESS", "OF", "REACHED"], &rows));
        text.push_str(&format!("\n{}\n\n", invitation.text));
        text.push_str(
            "to be used with: homehost up --invite STRING, or homehost mesh join STRING\n",
        );
    } else {
        text.push_str(&invitation.text);
    }
    if let Some(note) = &invitation.note {
        output.hint(note);
    }
    text
}

/// The string as a code, two modules in a letter. Capitals make a smaller one.
///
/// # Errors
/// The columns that it takes, where it does not fit; a broken one reads as nothing.
fn code(text: &str, columns: Option<usize>) -> Result<String, Option<usize>> {
    let code = QrCode::with_error_correction_level(text.to_ascii_uppercase(), EcLevel::L);
    let code = code.map_err(|_| None)?.render::<Dense1x2>().build();
    let width = code.lines().next().map_or(0, |line| line.chars().count());
    if columns.is_some_and(|columns| columns < width) { Err(Some(width)) } else { Ok(code) }
}

/// Tells a person whether somebody of an invitation has answered.
pub(super) async fn wait(text: &str, client: &Client, output: &Output) -> Result<(), Failure> {
    let Ok(invite) = text.parse::<Invite>() else { return Ok(()) };
    let invited: Vec<String> = invite.nodes.iter().map(|node| node.node.to_string()).collect();
    let begun = Instant::now();
    while begun.elapsed() < ANSWER {
        let peers: Vec<Peer> = client.get("/api/v1/peers").await?;
        let there = peers.iter().filter(|peer| invited.contains(&peer.node)).count();
        if there > 0 {
            output.hint(&format!("joined: {} answered", crate::control::count(there, "node")));
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
    output.hint(
        "nobody has answered yet: the node keeps trying; ask whoever invited you whether their \
         node is up, and see `homehost doctor`",
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_invitation_still_makes_a_code() {
        let longest =
            "homehost1".to_owned() + &"a".repeat(homehost_protocol::limits::INVITE_CHARS_MAX - 9);
        let code = code(&longest, None).expect("it fits");
        let width = code.lines().next().expect("a line").chars().count();
        assert!(code.lines().all(|line| line.chars().count() == width));
        assert!(width < 160, "{width} columns");
        let usual = "homehost1".to_owned() + &"a".repeat(150);
        let shown = super::code(&usual, Some(60)).expect("it fits");
        let width = shown.lines().next().expect("a line").chars().count();
        assert_eq!(super::code(&usual, Some(width)), Ok(shown));
        assert_eq!(super::code(&usual, Some(width - 1)), Err(Some(width)), "it would be broken");
    }
}
