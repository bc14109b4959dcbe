package bounce

import (
	"slices"
	"testing"
)

// TestLanguages says the usual things in ten languages besides English. The
// bounce codes are those that are right for each meaning.
func TestLanguages(t *testing.T) {
	table := Default()
	for _, meaning := range []struct {
		name    string
		codes   []int
		replies []string
	}{
		{"user unknown", []int{10}, []string{
			"550 Utilisateur inconnu", "550 Destinataire inexistant", "550 Benutzer unbekannt", "550 Empfängeradresse ungültig",
			"550 Usuario desconocido", "550 Destinatario inexistente", "550 Usuário desconhecido", "550 Endereço inválido",
			"550 Destinatario sconosciuto", "550 Casella inesistente", "550 Gebruiker onbekend", "550 Adres bestaat niet",
			"550 Nieznany użytkownik", "550 Adresat nie istnieje", "550 Пользователь не существует", "550 Неизвестный пользователь",
			"550 ユーザーは存在しません", "550 宛先が見つかりません", "550 收件人不存在", "550 查无此用户",
		}},
		{"mailbox full", []int{22}, []string{
			"552 Boîte pleine", "552 Postfach voll", "552 Buzón lleno", "552 Caixa de entrada cheia", "552 Casella di posta piena",
			"552 Postvak is vol", "552 Skrzynka przepełniona", "552 Ящик переполнен", "552 メールボックスが一杯です", "552 邮箱空间已满",
		}},
		{"account disabled", []int{10, 20}, []string{
			"550 Compte suspendu", "550 Konto deaktiviert", "550 Cuenta desactivada", "550 Conta suspensa", "550 Account sospeso",
			"550 Account geblokkeerd", "550 Konto zawieszone", "550 Аккаунт заблокирован", "550 アカウントは停止されています", "550 邮箱已停用",
		}},
		{"spam", []int{52}, []string{
			"550 Message considéré comme spam", "550 Nachricht als Spam erkannt", "550 Mensaje identificado como correo no deseado",
			"550 Mensagem identificada como lixo eletrônico", "550 Posta indesiderata", "550 Ongewenste e-mail", "550 Niechciana wiadomość",
			"550 Письмо похоже на спам", "550 迷惑メールとして拒否されました", "550 垃圾邮件",
		}},
		{"greylisted", []int{70}, []string{
			"450 Mis en liste grise, réessayez dans 5 minutes", "450 Graulistung, bitte später erneut versuchen", "450 En lista gris, intente más tarde",
			"450 Em lista cinza, tente mais tarde", "450 In lista grigia, riprovare più tardi", "450 Op de grijze lijst geplaatst, probeer het later opnieuw",
			"450 Na szarej liście, spróbuj później", "450 Серый список, повторите попытку позже", "450 グレイリストにより一時的に拒否されました", "450 灰名单，请稍后重试",
		}},
		{"rate limited", []int{70}, []string{
			"450 Trop de messages, ralentissez", "450 Zu viele E-Mails von Ihrer Adresse", "450 Ha superado el límite de envío", "450 Limite de envio excedido",
			"450 Limite di invio superato", "450 Verzendlimiet overschreden", "450 Przekroczono limit wysyłania", "450 Превышен лимит отправки",
			"450 送信数の上限を超えました", "450 发送频率超过限制",
		}},
		{"relay denied", []int{54}, []string{
			"550 Relais refusé", "550 Relaying nicht erlaubt", "550 No se permite el relay", "550 Relay não permitido", "550 Relay non consentito",
			"550 Relay niet toegestaan", "550 Przekazywanie poczty zabronione", "550 Пересылка почты запрещена", "550 中継は許可されていません", "550 不允许转发",
		}},
		{"too large", []int{23}, []string{
			"552 Le message est trop volumineux", "552 Nachricht zu groß", "552 Mensaje demasiado grande", "552 Mensagem muito grande", "552 Messaggio troppo grande",
			"552 Het bericht is te groot", "552 Wiadomość jest za duża", "552 Размер письма превышает допустимый", "552 メールのサイズが制限を超えています", "552 邮件太大",
		}},
		{"blocked address", []int{51}, []string{
			"554 Votre adresse IP est bloquée", "554 Ihre IP-Adresse wurde blockiert", "554 Su IP ha sido bloqueada", "554 Seu IP está bloqueado",
			"554 Il suo indirizzo IP è bloccato", "554 Uw IP-adres is geblokkeerd", "554 Twój adres IP został zablokowany", "554 Ваш IP заблокирован",
			"554 送信元IPアドレスがブロックされています", "554 您的IP已被封禁",
		}},
		{"authentication", []int{50}, []string{
			"550 Échec de l'authentification SPF", "550 SPF-Prüfung fehlgeschlagen", "550 Falló la verificación SPF", "550 Falha na verificação DKIM",
			"550 Verifica DMARC fallita", "550 DMARC-controle mislukt", "550 Weryfikacja SPF nie powiodła się", "550 Проверка DMARC не пройдена",
			"550 SPF認証に失敗しました", "550 SPF验证失败",
		}},
		{"try later", []int{70}, []string{
			"451 Veuillez réessayer plus tard", "451 Bitte später erneut versuchen", "451 Inténtelo más tarde", "451 Tente novamente mais tarde", "451 Riprova più tardi",
			"451 Probeer het later opnieuw", "451 Spróbuj ponownie później", "451 Попробуйте позже", "451 しばらくしてから再送してください", "451 请稍后重试",
		}},
	} {
		t.Run(meaning.name, func(t *testing.T) {
			for _, reply := range meaning.replies {
				if v := table.Qualify(Input{Reply: ParseReply(reply)}); !slices.Contains(meaning.codes, v.Code) {
					t.Errorf("%s: code %d by %s, want one of %v", reply, v.Code, v.Rule, meaning.codes)
				}
			}
		})
	}
}
