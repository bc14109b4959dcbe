package inbound

import (
	"regexp"
	"strings"
)

// The scores from which a mail is a bounce: likely, when nothing else claims it;
// sure, whatever else claims it.
const (
	bounceLikely = 4
	bounceSure   = 6
)

var (
	// daemonName is how mail systems call themselves in From.
	daemonName = regexp.MustCompile(`(?i)mailer[-_ ]?daemon|mail[-. ]?delivery[-. ]?(?:sub)?system|delivery[- ]?(?:status|system|notification|failure)|mail system|returned mail|mdaemon|mail[-_ ]?failure|bounce[sd]?[-+@]|no-?reply@sns\.amazonaws`)
	masterName = regexp.MustCompile(`(?i)post[-_]?master|system administrator|mail administrator|mailadmin|administrador del sistema|administrateur|systemadministrator|mailgate`)
	// failureSubject are the subjects of bounces, in the languages mail systems speak.
	failureSubject = regexp.MustCompile(`(?i)` + strings.Join([]string{
		`fail(?:ure|ed)? (?:notice|notification|delivery)`, `failed delivery`, `delivery (?:status|failure|failed|report|notification|problem|error|has failed|delayed|temporarily)`,
		`undeliver`, `non[- ]?deliver`, `not (?:be )?deliver`, `return(?:ed|ing) (?:mail|e-?mail|message|to sender)`, `mail (?:could not be|delivery|system error|failure|error)`,
		`(?:message|mail|e-mail) (?:delivery|not|was not|could not|status|undeliver|failed|delayed)`, `(?:warning|attention): (?:could not send )?message`, `deliver(?:y|ing)[^a-z].*(?:delay|fail|problem)`,
		`could ?n.?t (?:be )?(?:deliver|send|sent)`, `error sending`, `(?:was an|an) error sending`, `bounce`, `nondeliverable|non remis`, `unzustellbar|nicht zustellbar|zustellung|nicht zugestellt|unzustell`,
		`non remis|échec de (?:la )?(?:remise|distribution)|non distribu|impossible de remettre|avis de non`, `no (?:se )?(?:entreg|pudo)|fallo (?:en|de) (?:la )?entrega|no se puede entregar|devuelto|no entregable|error de entrega|notificaci.n de (?:estado|entrega)`,
		`n.o (?:foi )?entreg|falha (?:na|de) entrega|n.o p.de ser entregue|devolvid|falha no envio|notifica..o de (?:estado|falha)`,
		`mancat[ao] (?:recapito|consegna)|non recapita|non consegna|notifica sullo stato|errore di recapito|impossibile (?:recapitare|consegnare)`,
		`niet (?:be)?zorg|onbestelbaar|bezorg(?:fout|ing)|kan niet worden (?:af)?gel|niet afgeleverd`, `niedor.cz|zwrot|nie (?:mo.na )?dor.cz|nie dostarcz|niepowodzenie|raport o niedor`,
		`недостав|не (?:было )?достав|не может быть достав|ошибка (?:при )?достав|возврат|невозможно доставить|сообщение не`, `配信(?:不能|できま|エラー|状況)|送信(?:でき|エラー|失敗|できま)|メールエラー|エラー通知|届(?:きません|けられ)|不達|エラーメール|メール(?:が|を)送`,
		`退信|退回|无法(?:投递|送达|发送)|投递(?:失败|状态)|未送达|傳遞|無法(?:傳|送)|未傳`, `loop alert`,
	}, "|"))
	// failureWords are the sentences by which mail systems announce a failure.
	failureWords = regexp.MustCompile(`(?i)` + strings.Join([]string{
		`(?:could ?n.t|could not|can ?not|can.t|not) be (?:delivered|sent)`, `unable to (?:deliver|send|relay|connect)`, `delivery (?:to|of|has|failed|failure|attempt|problems?|errors?)`, `(?:failed|failure) to deliver`,
		`did not reach`, `was not delivered`, `not (?:yet )?been delivered`, `undeliver`, `permanent(?:ly)? (?:fatal )?(?:error|fail)`, `transcript of session`, `following address(?:es)?(?:\(es\))? (?:failed|had)`,
		`message from\s+\S+\.\s+unable`, `returned to (?:the )?sender`, `giving up`, `mailbox (?:is )?(?:full|unavailable|not found|disabled)`, `mailbox exceeds`, `user(?:\(s\))?( account)? (?:unknown|is disabled)|unknown user|no such user|user not found`,
		`has been delayed|not yet been delivered|will (?:be )?retr`, `rejected (?:by|your)|was rejected`, `trouble delivering|problems? delivering|error (?:has )?occurred while (?:trying|attempting) to deliver|error delivering`,
		`wasn.t able to deliver|i.m afraid i`, `failure reasons?`, `could not deliver`, `invalid (?:final )?(?:delivery )?(?:userid|recipient)`, `message non-deliverable`, `host unknown`, `not listed in (?:public|domino)`,
		`no valid recipients`, `address(?: was)? not found`, `duplicated message-id`, `message blocked|message too large|mail size limit|mailbox full|exceeded the local limit`,
		`nicht (?:zugestellt|zustellbar|ausgeliefert)|unzustellbar|konnte(?:n)? nicht`, `n.a pas pu .tre|impossible de (?:remettre|distribuer)|n.a pas .t. (?:remis|distribu)`, `no (?:se )?(?:pudo|ha podido|puede) (?:ser )?(?:entreg|envi)|no pudo ser entregado`,
		`n.o (?:p.de|pode|foi) (?:ser )?(?:entreg|envi)`, `non .? ?(?:stato possibile|pu. essere|recapitat|consegnat)`, `kon(?:den)? niet worden|niet (?:bezorgd|afgeleverd)`, `nie (?:mo.na|mo.e|zosta.) `, `не (?:может|удалось|доставл|было достав)`,
		`(?:送信|配信|配達)(?:でき|に失敗|不能)|届け(?:ること|られ)|エラー`, `无法(?:投递|送达|发送)|退信|被退回|投递失败|無法(?:傳|送)|不存在`,
	}, "|"))
	// smtpWords are what only mail systems write.
	smtpWords = regexp.MustCompile(`(?:^|[\s:#("'])(?:[45][0-5][0-9][ -]#?[45]\.\d{1,3}\.\d{1,3}\b|[45]\.[0-7]\.\d{1,3}\b|5[0-5][0-9][ -][A-Za-z<:])|RCPT TO:|MAIL FROM:|\bSMTP\b|(?i:MSEXCH:|x-postfix)`)
)

// bounceScore weighs the signs of a bounce that has no status fields.
func bounceScore(s *study, original Header) int {
	score := 0
	add := func(n int, yes bool) {
		if yes {
			score += n
		}
	}
	from := clip(s.header.Text("From"), maxSubject)
	add(4, s.header.Has("X-Failed-Recipients"))
	add(2, daemonName.MatchString(from))
	add(1, masterName.MatchString(from))
	add(1, s.nullSender())
	add(2, failureSubject.MatchString(s.subject))
	add(2, failureWords.MatchString(clip(s.report, 8<<10)))
	add(1, smtpWords.MatchString(clip(s.report, 8<<10)))
	add(1, s.enclosed != nil || s.copied != "")
	add(2, s.mail.Root.Params["report-type"] == "delivery-status")
	add(2, anyOf(s.passages, envelopeRecipients(original)))
	add(1, len(s.passages) > 0 && (s.enclosed != nil || s.copied != ""))
	add(-3, strings.TrimSpace(s.report) == "" && s.enclosed == nil)
	return score
}

var (
	delayedWords = regexp.MustCompile(`(?i)\bdelayed\b|has been delayed|not yet been delivered|warning message only|will (?:be |continue )?(?:retr|to (?:try|attempt))|(?:still|continue) (?:trying|being retried)|attempts will continue|do not need to resend|(?:temporarily|transient) (?:undeliver|fail|non-fatal)|transient non-fatal|noch nicht zugestellt|verz.gert|ret ?ard|retras|atras|ritard|vertraag|op..nio|задерж|遅延|延迟`)
	givenUpWords = regexp.MustCompile(`(?i)permanent|given up|giving up|failed|not going to try|could not be delivered for|undeliver|expired|no further|could not be delivered`)
	successWords = regexp.MustCompile(`(?i)(?:was|been|is) successfully (?:delivered|relayed)|successful (?:mail )?delivery|delivery status notification \(success\)|successfully delivered to`)
)

// actionOf tells from the words what became of the mail.
func actionOf(s *study) Action {
	words := s.subject + "\n" + clip(s.report, 8<<10)
	switch {
	case successWords.MatchString(words) && !givenUpWords.MatchString(words):
		return ActionDelivered
	case delayedWords.MatchString(s.subject), delayedWords.MatchString(words) && !givenUpWords.MatchString(words):
		return ActionDelayed
	}
	return ActionFailed
}
