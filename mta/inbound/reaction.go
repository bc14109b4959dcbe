package inbound

import (
	"regexp"
	"strings"
)

var (
	// awaySubject are the subjects of automatic replies as mail programs set them,
	// in the languages qualification knows.
	awaySubject = regexp.MustCompile(`(?i)` + strings.Join([]string{
		`^\s*(?:auto(?:matic|mated|matisch|matique|m.tica|matica)?|aut)[-: ]+(?:re(?:ply|sponse|sponder)?|answer|antwort|r.ponse|respuesta|resposta|risposta|antwoord|odpowied)?\s*:?`, `auto[- ]?(?:reply|response|respond|matic reply|matic response)|automated (?:reply|response)|automatic(?:ally)? (?:generated )?(?:reply|answer|response)`,
		`out[- ]?of[- ]?(?:the[- ]?)?office|\bOOO\b|\booto\b|away from (?:my|the) (?:office|desk|mail|email)|on (?:vacation|holiday|leave|annual leave|maternity)|\b(?:vacation|holiday) (?:reply|response|message|notice)|^\s*away\b|(?:i am|i'm|currently) (?:away|out)|absence|no longer (?:with|at|works?)`,
		`abwesenheit|abwesend|nicht im (?:b.ro|hause)|im urlaub|automatische antwort|autom\. antwort|urlaubs`,
		`r.ponse automatique|absen[ct]e? (?:du bureau|de)|en (?:cong.s?|vacances)|absent\(?e?\)? du bureau|message d.absence`,
		`respuesta autom.tica|fuera de (?:la )?oficina|ausente|de vacaciones|ausencia`, `resposta autom.tica|fora do escrit.rio|aus.ncia|de f.rias|ausente`,
		`risposta automatica|fuori (?:sede|ufficio)|assenza|assente|in ferie`, `automatisch antwoord|afwezig|buiten kantoor|niet op kantoor|met vakantie|op vakantie`,
		`automatyczna odpowied|odpowied. automatyczna|poza biurem|nieobecno|na urlopie|autoodpowied`, `автоответ|автоматический ответ|вне офиса|нет на месте|в отпуске|отсутств`,
		`自動(?:返信|応答|送信)|不在(?:通知|の|です|連絡|のお知らせ|届)|休暇|外出中`, `自动(?:回复|答复|应答)|自動(?:回覆|回复|答覆)|不在(?:办公|辦公|公司)|外出(?:公|通知)|休假|假期`,
	}, "|"))
	// awayWords begin the texts of out-of-office mails that say nothing in header or subject.
	awayWords = regexp.MustCompile(`(?i)\b(?:i am|i'm|i will be|i'll be) (?:currently )?(?:away|out of (?:the )?office|on (?:vacation|holiday|leave))|this is an automat(?:ed|ic) (?:reply|response)|thank you for (?:your (?:e-?mail|message)|contacting).{0,200}(?:out of|away|automat)|bin (?:ich )?(?:derzeit |zur zeit |bis )?.{0,30}(?:nicht im b.ro|abwesend|im urlaub)|je suis (?:actuellement )?(?:absent|en cong)|estoy (?:fuera|de vacaciones)|estou (?:fora|de f.rias)|sono (?:fuori|assente|in ferie)|ik ben (?:momenteel )?(?:afwezig|niet|met vakantie)|jestem (?:obecnie )?(?:nieobecn|na urlopie)|я (?:сейчас )?(?:в отпуске|отсутств)|不在にし|休暇中|我(?:目前|现在)?(?:正在休假|不在)`)
	// challengeSubject and challengeWords are those of challenge-response systems.
	challengeSubject = regexp.MustCompile(`(?i)\bconfirm(?:ation)? (?:that )?(?:you|your|requ|needed|of your (?:e-?mail|message))|please confirm|(?:verify|verification) (?:of )?your (?:e-?mail|message|identity|address)|your (?:e-?mail|message|mail) (?:to .{1,80} )?(?:requires|needs|is awaiting|awaiting|has been held|is being held).{0,40}|awaiting (?:your )?(?:confirm|verif|authenti)|authenticat(?:e|ion) (?:your|requ)|\bchallenge\b|spam ?arrest|boxbe|mailinblack|tmda|\bqconfirm|action required to deliver|authorization required|sender verification|demande d.authentification|best.tig(?:en|ung) .{0,30}(?:nachricht|absender|e-?mail)|confirme? (?:su|seu|sua) (?:mensaje|correo|e-?mail|mensagem)|antispam uol`)
	challengeWords   = regexp.MustCompile(`(?i)(?:click|follow|visit|press|reply|respond|use)\b.{0,160}(?:to (?:have|confirm|verify|prove|release|authenticat|deliver|get)|so that).{0,120}(?:message|mail|human|deliver|sender|address|list)|to (?:prove|confirm|verify) (?:that )?you.{0,20}(?:are|re) (?:a )?(?:human|real|not|legitimate)|(?:one[- ]time|simple) (?:confirmation|verification|authentication)|before (?:your|the) (?:message|e-?mail|mail) (?:can|will) be delivered|challenge[- ]response|approved senders? list|has been (?:held|quarantined|placed) .{0,80}(?:until|confirm|verif|reply)|pour que votre (?:message|e-?mail) soit (?:remis|d.livr)|para que (?:su|sua|seu) .{0,20}(?:mensaje|mensagem|correo|e-?mail) (?:sea|seja) entreg`)
	// removal are the subjects of unsubscribe requests: the word alone or nearly so.
	removal = regexp.MustCompile(`(?i)^\W*(?:(?:re|fwd?|aw|sv|tr|wg)\s*:\s*)*\W*(?:please\s+)?(?:(?:list[- ])?unsubscribe(?: me| request)?|opt[- ]?out|remove(?: me)?|signoff|leave|abmelden|abbestellen|abmeldung|austragen|d.sabonner|d.sinscri(?:re|ption)|d.sabonnement|(?:dar(?:me)? de )?baja|cancelar (?:la )?(?:suscripci.n|inscri..o|assinatura)|anular suscripci.n|descadastrar|remover|disiscri(?:vi|zione|vimi)|cancellami|cancellazione|uitschrijven|afmelden|wypisz(?: mnie)?|rezygn(?:acja|uj.)|отписаться|отписка|отпишите|отказ от рассылки|配信停止|購読解除|登録解除|退会|退订|取消订阅|退訂|取消訂閱)\b?\W*(?:from .{0,60}|\S{0,200})?\s*$`)
	// removalAddress is the local part of addresses for such requests.
	removalAddress = regexp.MustCompile(`(?i)(?:^|[-+._=])(?:list-?)?(?:unsub(?:scribe)?|opt-?out|leave|signoff|remove|abmelden|desinscription|baja)(?:$|[-+._=])`)
)

// isAutoReply reports whether a program answered: by what RFC 3834 section 5 and
// the programs before it put into the header, or by its subject, or (for a mail
// that answers or came from nobody) by its words.
func isAutoReply(s *study) bool {
	h := s.header
	if word := strings.ToLower(h.Get("Auto-Submitted")); word != "" && !strings.HasPrefix(word, "no") {
		return strings.HasPrefix(word, "auto-replied") || awaySubject.MatchString(s.subject) || awayWords.MatchString(clip(s.report, 4<<10))
	}
	for _, name := range []string{"X-Autoreply", "X-Autorespond", "X-Auto-Reply", "X-Autoresponder", "X-AutoReply-From", "X-Mail-Autoreply", "X-Vacation", "X-Autoreply-From", "Vacation"} {
		if h.Has(name) && !strings.EqualFold(strings.TrimSpace(h.Get(name)), "no") {
			return true
		}
	}
	switch strings.ToLower(h.Get("Precedence")) {
	case "auto_reply", "auto-reply", "autoreply", "auto_submitted":
		return true
	}
	if strings.EqualFold(h.Get("X-Apple-Action"), "vacation") || strings.EqualFold(h.Get("X-Autogenerated"), "reply") || strings.EqualFold(h.Get("Delivered-To"), "autoresponder") ||
		h.Get("X-POST-MessageClass") == "9; Autoresponder" {
		return true
	}
	if awaySubject.MatchString(s.subject) {
		return true
	}
	answers := h.Has("In-Reply-To") || h.Has("References") || s.nullSender() || h.Has("X-Auto-Response-Suppress")
	return answers && awayWords.MatchString(clip(s.report, 4<<10))
}

// isChallenge reports whether the mail wants a confirmation before it lets mail
// through: by the marks of such systems, or by subject and words together.
func isChallenge(s *study) bool {
	for _, name := range []string{"X-TMDA-Confirm", "X-Boxbe-Challenge", "X-ChoiceMail", "X-Spamarrest", "X-AskMe", "X-Challenge", "X-Captcha-Challenge"} {
		if s.header.Has(name) {
			return true
		}
	}
	if strings.Contains(s.header.Get("Delivery-Agent")+s.header.Get("X-Delivery-Agent"), "TMDA") && strings.Contains(strings.ToLower(s.from), "confirm") {
		return true
	}
	words := challengeWords.MatchString(clip(s.report, 8<<10))
	return words && (challengeSubject.MatchString(s.subject) || s.header.Has("Auto-Submitted") || s.header.Has("In-Reply-To") || s.nullSender()) ||
		challengeSubject.MatchString(s.subject) && (s.header.Has("Auto-Submitted") || s.nullSender())
}

// isUnsubscribe reports whether the mail asks to be taken off a list. Programs
// that do it for the reader mark it or send the word that the list named.
func isUnsubscribe(s *study, env Envelope) bool {
	if s.header.Has("X-Apple-Unsubscribe") {
		return true
	}
	if env.Unsubscribe {
		return s.sealedSubject() || !isAutoReply(s) && !s.nullSender()
	}
	if s.header.Has("Auto-Submitted") && !strings.EqualFold(s.header.Get("Auto-Submitted"), "no") && !removal.MatchString(s.subject) {
		return false
	}
	if removal.MatchString(s.subject) {
		return true
	}
	to := s.to()
	if env.Recipient != "" {
		to = []string{env.Recipient}
	}
	for _, a := range to {
		if removalAddress.MatchString(localPart(a)) {
			return !isAutoReply(s)
		}
	}
	return strings.TrimSpace(s.subject) == "" && removal.MatchString(firstLine(s.report))
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}
