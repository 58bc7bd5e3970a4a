//! Talking with a person in a terminal about secrets.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use zeroize::Zeroizing;

use crate::cli::Output;
use crate::identity::phrase::{Phrase, WORDS};

/// A text that is wiped when dropped.
pub(crate) type Secret = Zeroizing<String>;

/// How often a person may slip before the words are left for another day.
const TRIES: usize = 3;

/// Words that are asked back.
const ASKED: usize = 3;

/// What ends the lesson.
const SKIP: &str = "skip";

/// Somebody who reads and answers.
pub(crate) trait Talk {
    /// Shows a line, or several.
    fn say(&mut self, text: &str);

    /// Asks for a line; an error when there is none any more.
    fn ask(&mut self, prompt: &str) -> io::Result<Secret>;

    /// Takes what was shown out of sight.
    fn clear(&mut self);
}

/// The terminal of this process.
#[derive(Debug)]
pub(crate) struct Terminal(());

impl Terminal {
    /// The terminal, where a person sits at both ends and wants text.
    pub(crate) fn open(output: &Output) -> Option<Self> {
        let person = io::stdin().is_terminal() && io::stdout().is_terminal();
        (person && !output.is_json()).then_some(Self(()))
    }

    /// Asks for something that must not be seen.
    ///
    /// # Errors
    /// When there is no terminal any more.
    pub(crate) fn secret(&mut self, prompt: &str) -> io::Result<Secret> {
        rpassword::prompt_password(prompt).map(Zeroizing::new)
    }

    /// Asks for yes or no; anything but yes is no.
    ///
    /// # Errors
    /// When there is no terminal any more.
    pub(crate) fn confirm(&mut self, question: &str) -> io::Result<bool> {
        let answer = self.ask(&format!("{question} [y/N] "))?;
        Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }

    /// Asks for the words of a phrase, on one line or several.
    ///
    /// # Errors
    /// When there is no terminal any more.
    pub(crate) fn words(&mut self) -> io::Result<Secret> {
        let mut words = Zeroizing::new(String::with_capacity(512));
        loop {
            let line = self.ask("> ")?;
            // An empty line is an end, too: somebody may have fewer.
            if line.trim().is_empty() {
                return Ok(words);
            }
            words.push_str(&line);
            words.push(' ');
            if words.split_whitespace().count() >= WORDS {
                return Ok(words);
            }
        }
    }
}

impl Talk for Terminal {
    fn say(&mut self, text: &str) {
        let mut out = io::stdout().lock();
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }

    fn ask(&mut self, prompt: &str) -> io::Result<Secret> {
        let mut out = io::stdout().lock();
        write!(out, "{prompt}").and_then(|()| out.flush())?;
        let mut line = Zeroizing::new(String::with_capacity(512));
        if io::stdin().lock().read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line)
    }

    fn clear(&mut self) {
        // The screen and what can be scrolled back to.
        let mut out = io::stdout().lock();
        let _ = write!(out, "\x1b[2J\x1b[3J\x1b[H").and_then(|()| out.flush());
    }
}

/// Shows a phrase and asks for three of its words. False when the person skips
/// it or slips too often.
///
/// # Errors
/// When there is nobody to talk to any more.
pub(crate) fn teach(talk: &mut impl Talk, phrase: &Phrase) -> io::Result<bool> {
    let words = phrase.words();
    for left in (0..TRIES).rev() {
        talk.say("The recovery phrase is these twelve words, in this order:\n");
        talk.say(&grid(&words));
        talk.say(
            "Write them on paper, now: they are shown once and not stored.\n\
             With them you can give this identity a new key when a machine or key is stolen.\n\
             Whoever else has them can take it from you.\n",
        );
        let answer =
            talk.ask("Press Enter when you have them, or type skip to do it later, with others: ")?;
        if is_skip(&answer) {
            talk.clear();
            return Ok(false);
        }
        talk.clear();
        talk.say("Please type three of them, from what you wrote down.\n");
        let mut right = true;
        for at in positions()? {
            let answer = talk.ask(&format!("Word {}: ", at + 1))?;
            if is_skip(&answer) {
                return Ok(false);
            }
            right &= answer.trim().eq_ignore_ascii_case(words[at]);
        }
        if right {
            talk.say("\nRight.");
            return Ok(true);
        }
        if left > 0 {
            talk.say("\nThat is not it. Look at them once more.\n");
        }
    }
    talk.say("\nThat is not it.");
    Ok(false)
}

fn is_skip(answer: &str) -> bool {
    answer.trim().eq_ignore_ascii_case(SKIP)
}

/// The words with their numbers, in columns that are read downwards.
fn grid(words: &[&str]) -> String {
    let rows = words.len().div_ceil(3);
    let mut text = String::new();
    for row in 0..rows {
        let cells =
            (row..words.len()).step_by(rows).map(|at| format!("{:>4} {:<10}", at + 1, words[at]));
        let line: String = cells.collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Three different places, in order.
fn positions() -> io::Result<[usize; ASKED]> {
    let mut places: Vec<usize> = (0..WORDS).collect();
    let mut random = [0; ASKED];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let mut chosen = [0; ASKED];
    for (chosen, random) in chosen.iter_mut().zip(random) {
        *chosen = places.remove(usize::from(random) % places.len());
    }
    chosen.sort_unstable();
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers by what it is asked, and remembers what it saw.
    struct Person<'a> {
        answer: Box<dyn FnMut(&str) -> String + 'a>,
        seen: String,
        cleared: usize,
    }

    impl Talk for Person<'_> {
        fn say(&mut self, text: &str) {
            self.seen.push_str(text);
        }
        fn ask(&mut self, prompt: &str) -> io::Result<Secret> {
            Ok(Zeroizing::new((self.answer)(prompt)))
        }
        fn clear(&mut self) {
            self.cleared += 1;
        }
    }

    fn taught<'a>(answer: impl FnMut(&str) -> String + 'a) -> (bool, Person<'a>) {
        let mut person = Person { answer: Box::new(answer), seen: String::new(), cleared: 0 };
        let done = teach(&mut person, &Phrase::of_entropy(&[7; 16])).unwrap();
        (done, person)
    }

    fn asked(prompt: &str) -> Option<usize> {
        prompt.strip_prefix("Word ")?.strip_suffix(": ")?.parse().ok()
    }

    #[test]
    fn who_wrote_the_words_down_has_them() {
        let phrase = Phrase::of_entropy(&[7; 16]);
        let words = phrase.words();
        let mut places = Vec::new();
        let (done, person) = taught(|prompt| {
            let Some(at) = asked(prompt) else { return "\n".to_owned() };
            places.push(at);
            format!(" {}\n", words[at - 1].to_uppercase())
        });
        assert!(done);
        assert!(words.iter().all(|word| person.seen.contains(word)));
        assert_eq!(person.cleared, 1, "they are not in sight when they are asked for");
        drop(person);
        assert_eq!(places.len(), 3);
        assert!(places.windows(2).all(|two| two[0] < two[1]) && places[2] <= 12, "{places:?}");
    }

    #[test]
    fn who_did_not_gets_three_tries_or_skips() {
        let mut rounds = 0;
        let (done, person) = taught(|prompt| {
            rounds += usize::from(asked(prompt).is_none());
            "zebra\n".to_owned()
        });
        assert!(!done);
        assert_eq!(person.cleared, 3);
        drop(person);
        assert_eq!(rounds, 3);
        for when in [None, Some(())] {
            let (done, _) = taught(|prompt| match (asked(prompt).map(drop), when) {
                (None, None) | (Some(()), Some(())) => "Skip\n".to_owned(),
                _ => "\n".to_owned(),
            });
            assert!(!done);
        }
    }

    #[test]
    fn the_words_are_numbered_downwards() {
        let words = Phrase::of_entropy(&[0; 16]).words();
        let text = grid(&words);
        assert_eq!(text.lines().count(), 4);
        assert!(text.starts_with("   1 abandon      5 abandon      9 abandon\n"), "{text}");
        assert!(text.ends_with("12 about\n"), "{text}");
    }
}
