package world

// manner is how a kind of mail system writes what comes back.
type manner struct {
	// bounce is the form of a bounce mail, and what it says.
	bounce        string
	unknown, full finding
	// complaint is the form of a complaint, complainer its envelope sender.
	complaint, complainer string
	// reply is the form of an out-of-office mail.
	reply string
	// oneClick says that the provider prefers one click to a mail.
	oneClick bool
}

// finding is what a bounce mail says of a recipient.
type finding struct {
	status     string // RFC 3463
	diagnostic string // RFC 3464 section 2.3.6
	title      string // in a few words
	words      string // for people
}

// manner is that of the receiver's dialect; what is not listed writes as Postfix.
func (r Return) manner() manner {
	m, ok := manners[r.Dialect]
	if !ok {
		m = manners["postfix"]
	}
	return m
}

// manners are by dialect. The forms are those of real mail systems, shortened to
// what a reader of bounces looks at.
var manners = map[string]manner{
	"postfix":  {bounce: postfixBounce, unknown: dovecotUnknown, full: dovecotFull, complaint: feedbackReport, reply: vacation},
	"apple":    {bounce: postfixBounce, unknown: dovecotUnknown, full: dovecotFull, complaint: feedbackReport, reply: vacation},
	"orange":   {bounce: postfixBounce, unknown: dovecotUnknown, full: dovecotFull, complaint: redactedReport, reply: vacation},
	"yahoo":    {bounce: postfixBounce, unknown: dovecotUnknown, full: dovecotFull, complaint: yahooReport, complainer: "feedback@arf.mail.yahoo.com", reply: vacation, oneClick: true},
	"exim":     {bounce: eximBounce, unknown: eximUnknown, full: eximFull, complaint: feedbackReport, reply: vacation},
	"gmx":      {bounce: eximBounce, unknown: eximUnknown, full: eximFull, complaint: feedbackReport, reply: vacation},
	"gmail":    {bounce: gmailBounce, unknown: gmailUnknown, full: gmailFull, complaint: feedbackReport, reply: gmailReply, oneClick: true},
	"outlook":  {bounce: exchangeBounce, unknown: exchangeUnknown, full: exchangeFull, complaint: junkReport, complainer: "staff@hotmail.com", reply: exchangeReply},
	"exchange": {bounce: exchangeBounce, unknown: exchangeUnknown, full: exchangeFull, complaint: junkReport, complainer: "staff@hotmail.com", reply: exchangeReply},
}

// Postfix in front of Dovecot: accepted, and refused by the mailbox's own server.
const postfixBounce = `
Date: {date}
From: MAILER-DAEMON@{host} (Mail Delivery System)
Subject: Undelivered Mail Returned to Sender
To: {from}
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status;
	boundary="{boundary}"
Message-Id: <{id}.bounce@{host}>

This is a MIME-encapsulated message.

--{boundary}
Content-Description: Notification
Content-Type: text/plain; charset=utf-8

This is the mail system at host {host}.

I'm sorry to have to inform you that your message could not
be delivered to one or more recipients. It's attached below.

For further assistance, please send mail to postmaster.

If you do so, please include this problem report. You can
delete your own text from the attached returned message.

                   The mail system

{words}

--{boundary}
Content-Description: Delivery report
Content-Type: message/delivery-status

Reporting-MTA: dns; {host}
X-Postfix-Queue-ID: {id}
X-Postfix-Sender: rfc822; {from}
Arrival-Date: {arrived}

Final-Recipient: {typed}
Original-Recipient: {typed}
Action: failed
Status: {status}
Remote-MTA: dns; {host}[private/dovecot-lmtp]
Diagnostic-Code: {diagnostic}

--{boundary}
Content-Description: Undelivered Message Headers
Content-Type: text/rfc822-headers

Return-Path: <{from}>
Received: from [{ip}] by {host} (Postfix) with ESMTPS id {id}
	for <{rcpt}>; {arrived}
{header}

--{boundary}--
`

var (
	dovecotUnknown = finding{
		status: "5.1.1", diagnostic: "smtp; 550 5.1.1 <{rcpt}> User doesn't exist: {rcpt}",
		words: "<{rcpt}>: host {host}[private/dovecot-lmtp] said: 550 5.1.1\n    <{rcpt}> User doesn't exist: {rcpt} (in reply to RCPT TO command)",
	}
	dovecotFull = finding{
		status: "5.2.2", diagnostic: "smtp; 552 5.2.2 <{rcpt}> Quota exceeded (mailbox for user is full)",
		words: "<{rcpt}>: host {host}[private/dovecot-lmtp] said: 552 5.2.2\n    <{rcpt}> Quota exceeded (mailbox for user is full) (in reply to end of DATA\n    command)",
	}
)

const eximBounce = `
X-Failed-Recipients: {rcpt}
Auto-Submitted: auto-replied
From: Mail Delivery System <Mailer-Daemon@{host}>
To: {from}
References: {message-id}
Content-Type: multipart/report; report-type=delivery-status; boundary="{boundary}"
MIME-Version: 1.0
Subject: Mail delivery failed: returning message to sender
Message-Id: <E{id}@{host}>
Date: {date}

--{boundary}
Content-type: text/plain; charset=utf-8

This message was created automatically by mail delivery software.

A message that you sent could not be delivered to one or more of its
recipients. This is a permanent error. The following address(es) failed:

  {rcpt}
{words}

--{boundary}
Content-type: message/delivery-status

Reporting-MTA: dns; {host}

Action: failed
Final-Recipient: {typed}
Status: {status}
Remote-MTA: dns; {host}
Diagnostic-Code: {diagnostic}

--{boundary}
Content-type: text/rfc822-headers

Return-path: <{from}>
Received: from [{ip}] by {host} with esmtps (Exim 4.97)
	(envelope-from <{from}>) id {id}
	for {rcpt}; {arrived}
{header}

--{boundary}--
`

var (
	eximUnknown = finding{
		status: "5.1.1", diagnostic: "smtp; 550 5.1.1 <{rcpt}>: No such user here",
		words: "    host {host}\n    SMTP error from remote mail server after RCPT TO:<{rcpt}>:\n    550 5.1.1 <{rcpt}>: No such user here",
	}
	eximFull = finding{
		status: "5.2.2", diagnostic: "smtp; 552 5.2.2 <{rcpt}>: mailbox is full: quota exceeded",
		words: "    host {host}\n    SMTP error from remote mail server after end of data:\n    552 5.2.2 <{rcpt}>: mailbox is full: quota exceeded",
	}
)

const gmailBounce = `
Return-Path: <>
From: Mail Delivery Subsystem <mailer-daemon@googlemail.com>
To: {from}
Auto-Submitted: auto-replied
Subject: Delivery Status Notification (Failure)
Date: {date}
Message-ID: <{id}.googlemail.com@mx.google.com>
In-Reply-To: {message-id}
References: {message-id}
X-Failed-Recipients: {rcpt}
MIME-Version: 1.0
Content-Type: multipart/report; boundary="{boundary}"; report-type=delivery-status

--{boundary}
Content-Type: text/plain; charset="UTF-8"

** {title} **

{words}

The response was:

{response}

--{boundary}
Content-Type: message/delivery-status

Reporting-MTA: dns; googlemail.com
Arrival-Date: {arrived}
X-Original-Message-ID: {message-id}

Final-Recipient: {typed}
Action: failed
Status: {status}
Diagnostic-Code: {diagnostic}
Last-Attempt-Date: {date}

--{boundary}
Content-Type: message/rfc822

Return-Path: <{from}>
Received: from [{ip}] by {host} with ESMTPS id {id}
	for <{rcpt}>; {arrived}
{header}

----- Message truncated -----

--{boundary}--
`

var (
	gmailUnknown = finding{
		status: "5.1.1",
		diagnostic: "smtp; 550-5.1.1 The email account that you tried to reach does not exist. Please try\n 550-5.1.1 double-checking the recipient's email address for typos or\n" +
			" 550-5.1.1 unnecessary spaces. For more information, go to\n 550 5.1.1  https://support.google.com/mail/?p=NoSuchUser {id} - gsmtp",
		title: "Address not found", words: "Your message wasn't delivered to {rcpt} because the address couldn't be found, or is unable to receive mail.",
	}
	gmailFull = finding{
		status: "5.2.2",
		diagnostic: "smtp; 552-5.2.2 The recipient's inbox is out of storage space and inactive. Please\n 552-5.2.2 direct the recipient to\n" +
			" 552 5.2.2  https://support.google.com/mail/?p=OverQuotaPerm {id} - gsmtp",
		title: "Recipient inbox full", words: "Your message couldn't be delivered to {rcpt}. Their inbox is full, or it's getting too much mail right now.",
	}
)

const exchangeBounce = `
From: <postmaster@{domain}>
To: <{from}>
Date: {date}
Content-Type: multipart/report; report-type=delivery-status;
	boundary="{boundary}"
MIME-Version: 1.0
Content-Language: en-US
Message-ID: <{id}@{host}>
In-Reply-To: {message-id}
References: {message-id}
Subject: Undeliverable: {subject}
Auto-Submitted: auto-replied
X-MS-Exchange-Message-Is-Ndr:

--{boundary}
Content-Type: text/plain; charset="utf-8"

Delivery has failed to these recipients or groups:

{rcpt}<mailto:{rcpt}>
{words}

Diagnostic information for administrators:

Generating server: {host}

{rcpt}
Remote Server returned '{response}'

--{boundary}
Content-Type: message/delivery-status

Reporting-MTA: dns;{host}
Received-From-MTA: dns;[{ip}]
Arrival-Date: {arrived}

Final-Recipient: {typed}
Action: failed
Status: {status}
Diagnostic-Code: {diagnostic}

--{boundary}
Content-Type: message/rfc822

Received: from [{ip}] by {host} with Microsoft SMTP Server
 (version=TLS1_2, cipher=TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384) id {id};
 {arrived}
{header}

--{boundary}--
`

var (
	exchangeUnknown = finding{
		status: "5.1.1", diagnostic: "smtp;550 5.1.1 RESOLVER.ADR.RecipientNotFound; Recipient {rcpt} not found by SMTP address lookup",
		words: "The email address you entered couldn't be found. Please check the recipient's email address and try to resend the message. If the problem continues, please contact your helpdesk.",
	}
	exchangeFull = finding{
		status: "5.2.2", diagnostic: "smtp;554 5.2.2 mailbox full; STOREDRV.Deliver.Exception:QuotaExceededException.MapiExceptionShutoffQuotaExceeded; Failed to process message due to a permanent exception",
		words: "The recipient's mailbox is full and can't accept messages now. Please try resending your message later, or contact the recipient directly.",
	}
)

// feedbackReport is a complaint as RFC 5965 writes it.
const feedbackReport = reportHead + `Original-Rcpt-To: <{rcpt}>
` + reportTail

// redactedReport hides who complained in its fields, as RFC 6590 allows.
const redactedReport = reportHead + `Original-Rcpt-To: redacted
` + reportTail

const reportHead = `
From: Feedback Loop <fbl@{domain}>
Date: {date}
Subject: FW: {subject}
To: {loop}
Message-ID: <{id}.arf@{host}>
MIME-Version: 1.0
Content-Type: multipart/report; report-type=feedback-report;
	boundary="{boundary}"

--{boundary}
Content-Type: text/plain; charset="utf-8"
Content-Transfer-Encoding: 7bit

This is an email abuse report for an email message received from IP
{ip} on {arrived}.

--{boundary}
Content-Type: message/feedback-report

Feedback-Type: abuse
User-Agent: FeedbackLoop/1.0
Version: 1
Original-Mail-From: <{from}>
`

const reportTail = `Arrival-Date: {arrived}
Source-IP: {ip}
Reported-Domain: {sender-domain}
Reporting-MTA: dns; {host}

--{boundary}
Content-Type: text/rfc822-headers
Content-Disposition: inline

{header}

--{boundary}--
`

// yahooReport is Yahoo's complaint feedback loop.
const yahooReport = `
MIME-Version: 1.0
Content-Transfer-Encoding: 7bit
Content-Type: multipart/report;
	boundary="{boundary}";
	report-type="feedback-report"
Date: {date}
From: Yahoo! Mail AntiSpam Feedback <feedback@arf.mail.yahoo.com>
To: {loop}
Subject: FW:{subject}
Message-ID: <{id}@arf.mail.yahoo.com>

This is a multi-part message in MIME format.

--{boundary}
Content-Disposition: inline
Content-Transfer-Encoding: 7bit
Content-Type: text/plain; charset="utf-8"

This is an email abuse report for an email message received from {sender-domain} on {arrived}

--{boundary}
Content-Disposition: inline
Content-Transfer-Encoding: 7bit
Content-Type: message/feedback-report

Feedback-Type: abuse
User-Agent: Yahoo!-Mail-Feedback/2.0
Version: 0.1
Original-Mail-From: <{from}>
Original-Rcpt-To: {rcpt}
Received-Date: {arrived}
Reported-Domain: {sender-domain}

--{boundary}
Content-Disposition: inline
Content-Type: message/rfc822

X-Apparently-To: {rcpt} via {ip}; {arrived}
Return-Path: <{from}>
X-Originating-IP: [{ip}]
Received: from [{ip}] by {host} with SMTP; {arrived}
{header}

--{boundary}--
`

// junkReport is the old form of Microsoft's Junk Mail Reporting Program: the mail
// alone, and who complained in a field of its own.
const junkReport = `
Date: {date}
From: staff@hotmail.com
Subject: complaint about message from {ip}
To: {loop}
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="{boundary}"
Message-ID: <{id}@{host}>

--{boundary}
Content-Type: message/rfc822
Content-Disposition: inline

X-HmXmrOriginalRecipient: {rcpt}
X-Reporter-IP: {ip}
Received: from [{ip}] by {host} with Microsoft SMTPSVC; {arrived}
{header}

--{boundary}--
`

// vacation is what Sieve's vacation writes (RFC 5230 section 5).
const vacation = `
Date: {date}
From: <{rcpt}>
To: <{from}>
Subject: Auto: {subject}
Message-ID: <{id}.vacation@{host}>
In-Reply-To: {message-id}
References: {message-id}
Auto-Submitted: auto-replied (vacation)
Precedence: bulk
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

I am on vacation until further notice. Your mail has arrived and I will read it
when I am back.
`

const gmailReply = `
Date: {date}
From: <{rcpt}>
To: <{from}>
Subject: Out of office Re: {subject}
Message-ID: <{id}@mail.gmail.com>
In-Reply-To: {message-id}
References: {message-id}
Auto-Submitted: auto-replied
X-Autoreply: yes
Precedence: bulk
MIME-Version: 1.0
Content-Type: text/plain; charset="UTF-8"

Thank you for your message. I am out of the office and will answer when I am back.
`

const exchangeReply = `
From: <{rcpt}>
To: <{from}>
Date: {date}
Subject: Automatic reply: {subject}
Message-ID: <{id}@{host}>
In-Reply-To: {message-id}
X-Auto-Response-Suppress: All
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: text/plain; charset="utf-8"

I am currently out of the office and will reply to your message when I return.
`

// unsubscribeMail is what a mail program sends for its reader.
const unsubscribeMail = `
Date: {date}
From: <{rcpt}>
To: <{to}>
Subject: {wish}
Message-ID: <{id}.unsubscribe@{domain}>
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

{words}
`
