//! A mail with its envelope, as rules and records see it.

use std::sync::Arc;

use serde_json::Value;

use super::attachment::{Attachment, Keeping};
use super::mime::{Kind, Message};
use super::options::SmtpOptions;
use super::record;
use crate::app::content::{Content, Part};
use crate::app::file::File;
use crate::app::protocol::AppProtocol;
use crate::bounded::{heap, held};
use crate::flow::PacketDirection;
use crate::rules::ast::AppBuffer;

/// Most bytes of all recipients.
const MAX_RECIPIENTS: usize = 128 << 10;

/// Sender and recipients.
type Envelope = (Option<Vec<u8>>, Vec<Vec<u8>>);

/// What comes of a mail itself.
#[derive(Debug)]
pub(super) enum Body {
    /// It is taken apart.
    Message(Box<Message>, Option<String>),
    /// It is a file.
    Raw(Box<Attachment>),
    /// Nobody looks at it.
    Ignored,
}

/// A mail, or as much of one as was said.
#[derive(Debug)]
pub struct Mail {
    pub(super) helo: Option<Vec<u8>>,
    pub(super) from: Option<Vec<u8>>,
    pub(super) recipients: Vec<Vec<u8>>,
    recipients_bytes: usize,
    pub(super) body: Option<Body>,
    /// Bytes of it.
    pub(super) bytes: u64,
    /// A command is about it.
    pub(super) said: bool,
    pub(super) options: Arc<SmtpOptions>,
    keeping: Keeping,
}

impl Mail {
    pub(super) fn new(helo: Option<Vec<u8>>, options: Arc<SmtpOptions>, keeping: Keeping) -> Self {
        Self {
            helo,
            from: None,
            recipients: Vec::new(),
            recipients_bytes: 0,
            body: None,
            bytes: 0,
            said: false,
            options,
            keeping,
        }
    }

    /// Another recipient; whether there is room for it.
    pub(super) fn recipient(&mut self, path: &[u8]) -> bool {
        self.recipients_bytes += path.len();
        let room = self.recipients_bytes <= MAX_RECIPIENTS;
        if room {
            self.recipients.push(path.to_vec());
        }
        room
    }

    /// The mail itself begins.
    pub(super) fn begin(&mut self) {
        if self.body.is_some() {
            return;
        }
        let options = &self.options;
        self.body = Some(if options.decode_mime {
            Body::Message(Box::new(Message::new(options, self.keeping)), None)
        } else if options.raw {
            let file = Attachment::new(b"rawmsg".to_vec(), self.keeping);
            Body::Raw(Box::new(file))
        } else {
            Body::Ignored
        });
    }

    /// It does not begin after all; whether that is possible: nothing of it must have come.
    pub(super) fn take_back(&mut self) -> bool {
        let nothing = self.bytes == 0;
        if nothing {
            self.body = None;
        }
        nothing
    }

    /// Sender and recipients.
    pub(super) fn envelope(&self) -> Envelope {
        (self.from.clone(), self.recipients.clone())
    }

    /// Those of another, which this one is instead of.
    pub(super) fn take_over(&mut self, (from, recipients): Envelope) {
        self.said = true;
        self.from = from;
        for path in &recipients {
            self.recipient(path);
        }
    }

    /// More of it.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        match &mut self.body {
            Some(Body::Message(message, _)) => message.push(bytes, &self.options),
            Some(Body::Raw(file)) => file.push(bytes),
            Some(Body::Ignored) | None => {}
        }
    }

    /// Nothing more comes of it; `whole` if that is all of it.
    pub(super) fn end(&mut self, whole: bool) {
        match &mut self.body {
            Some(Body::Message(message, md5)) => {
                message.finish(whole, &self.options);
                *md5 = message.body_md5();
            }
            Some(Body::Raw(file)) => file.end(whole),
            Some(Body::Ignored) | None => {}
        }
    }

    /// Some bytes of it are missing.
    pub(super) fn gap(&mut self) {
        match &mut self.body {
            Some(Body::Message(message, _)) => message.gap(),
            Some(Body::Raw(file)) => file.gap(),
            Some(Body::Ignored) | None => {}
        }
    }

    /// Rules have seen everything that has come.
    pub(super) fn seen(&mut self) {
        if let Some(Body::Message(message, _)) = &mut self.body {
            message.seen();
        }
    }

    /// Rules will not see it again.
    pub(super) fn forget(&mut self) {
        match &mut self.body {
            Some(Body::Message(message, _)) => message.forget(),
            Some(Body::Raw(file)) => file.forget(),
            Some(Body::Ignored) | None => {}
        }
    }

    /// What is wrong with it.
    pub(super) fn events(&self) -> &[&'static str] {
        self.message().map_or(&[], |it| it.events())
    }

    pub(super) fn message(&self) -> Option<&Message> {
        match &self.body {
            Some(Body::Message(message, _)) => Some(message),
            _ => None,
        }
    }

    pub(super) fn body_md5(&self) -> Option<&str> {
        match &self.body {
            Some(Body::Message(_, md5)) => md5.as_deref(),
            _ => None,
        }
    }

    fn attachments(&self) -> &[Attachment] {
        match &self.body {
            Some(Body::Message(message, _)) => message.files(),
            Some(Body::Raw(file)) => std::slice::from_ref(file),
            Some(Body::Ignored) | None => &[],
        }
    }

    /// Whether a command is about it.
    pub(crate) fn was_said(&self) -> bool {
        self.said
    }

    fn field(&self, kind: Kind, number: usize) -> Part<'_> {
        let Some(message) = self.message() else {
            return Part::Pending;
        };
        match message.header().values(kind).nth(number) {
            Some(value) => Part::whole(value),
            None if message.header_ended() => Part::Absent,
            None => Part::Pending,
        }
    }
}

/// What has not come may come until there is no more.
fn known(bytes: Option<&[u8]>) -> Part<'_> {
    bytes.map_or(Part::Pending, Part::whole)
}

impl Content for Mail {
    fn protocol(&self) -> AppProtocol {
        AppProtocol::Smtp
    }

    fn taken(&self) -> usize {
        let texts = [&self.helo, &self.from].into_iter().flatten();
        let texts = texts.chain(&self.recipients).map(held).sum::<usize>();
        let body = match &self.body {
            Some(Body::Message(message, md5)) => {
                let md5 = md5.as_ref().map_or(0, |it| heap(it.capacity()));
                message.taken() + md5
            }
            Some(Body::Raw(file)) => heap(size_of::<Attachment>()) + file.taken(),
            Some(Body::Ignored) | None => 0,
        };
        heap(size_of::<Self>()) + texts + held(&self.recipients) + body
    }

    fn part(&self, direction: PacketDirection, which: AppBuffer, number: usize) -> Part<'_> {
        use AppBuffer as B;
        if direction != PacketDirection::ToServer || number > 0 && !which.is_multiple() {
            return Part::Absent;
        }
        let field = |kind: Kind| self.field(kind, number);
        match which {
            B::SmtpHelo => known(self.helo.as_deref()),
            B::SmtpMailFrom => known(self.from.as_deref()),
            B::SmtpRcptTo => known(self.recipients.get(number).map(|it| &it[..])),
            B::EmailFrom => field(Kind::From),
            B::EmailTo => field(Kind::To),
            B::EmailCc => field(Kind::Cc),
            B::EmailSubject => field(Kind::Subject),
            B::EmailDate => field(Kind::Date),
            B::EmailMessageId => field(Kind::MessageId),
            B::EmailXMailer => field(Kind::XMailer),
            B::EmailReceived => field(Kind::Received),
            B::EmailUrl => {
                let urls = self.message().map(|it| it.urls().all());
                known(urls.and_then(|it| it.get(number)).map(|it| &it[..]))
            }
            B::EmailBodyMd5 => known(self.body_md5().map(str::as_bytes)),
            B::FileData => match self.attachments().get(number) {
                Some(file) => file.part(),
                None => Part::Pending,
            },
            B::FileName => known(self.attachments().get(number).map(|it| &it.name[..])),
            _ => Part::Absent,
        }
    }

    fn finish(&mut self, direction: PacketDirection) {
        if direction == PacketDirection::ToServer {
            self.end(false);
        }
    }

    fn fields(&self, _transaction: u64) -> Value {
        record::fields(self)
    }

    fn records(&self, transaction: u64, _version: u8) -> Vec<Value> {
        // There is one because something is wrong where no mail is.
        match self.was_said() {
            true => vec![self.fields(transaction)],
            false => Vec::new(),
        }
    }

    fn further_fields(&self) -> Option<(&'static str, Value)> {
        Some(("email", record::email(self)?))
    }

    fn files(&self, direction: PacketDirection) -> Vec<File> {
        match direction {
            PacketDirection::ToServer => self.attachments().iter().map(Attachment::file).collect(),
            PacketDirection::ToClient => Vec::new(),
        }
    }

    fn file_content(&self, _direction: PacketDirection, number: usize) -> Option<&[u8]> {
        self.attachments().get(number)?.content()
    }
}
