package credential

import (
	"errors"
	"fmt"
)

// maxRecipient bounds an age recipient's text; an X25519 one has 62 characters.
const maxRecipient = 512

// recipientStatement is what binds an age recipient to a credential. Each part
// follows its length as u32 big-endian.
func recipientStatement(key PublicKey, recipient string) []byte {
	return lengthPrefixed([]byte("sigild/recipient/v1"), key.Bytes, []byte(recipient))
}

// SignRecipient lets a user's credential name the age recipient ("age1...") that
// shares are encrypted to. The recipient's own syntax is judged by whoever encrypts.
func SignRecipient(signer Signer, recipient string) ([]byte, error) {
	if err := checkRecipient(recipient); err != nil {
		return nil, fmt.Errorf("signing recipient: %w", err)
	}
	signature, err := signer.Sign(recipientStatement(signer.Public(), recipient))
	if err != nil {
		return nil, fmt.Errorf("signing recipient with credential %s: %w", signer.Public().ID(), err)
	}
	return signature, nil
}

// VerifyRecipient checks [SignRecipient]'s signature. Errors: [ErrSignature], or
// what is wrong with recipient or key.
func VerifyRecipient(key PublicKey, recipient string, signature []byte) error {
	return VerifyRecipientAs(key, nil, recipient, signature)
}

// VerifyRecipientAs is VerifyRecipient for a key that may be of [WebAuthnP256].
func VerifyRecipientAs(key PublicKey, rp *RelyingParty, recipient string, signature []byte) error {
	if err := checkRecipient(recipient); err != nil {
		return fmt.Errorf("verifying recipient: %w", err)
	}
	if err := key.VerifyAs(rp, recipientStatement(key, recipient), signature); err != nil {
		return fmt.Errorf("verifying recipient: %w", err)
	}
	return nil
}

func checkRecipient(recipient string) error {
	if recipient == "" || len(recipient) > maxRecipient {
		return fmt.Errorf("recipient has %d characters, want 1 to %d", len(recipient), maxRecipient)
	}
	for i := range len(recipient) {
		if recipient[i] <= 0x20 || recipient[i] > 0x7e {
			return errors.New("recipient has a character that isn't printable ASCII")
		}
	}
	return nil
}
