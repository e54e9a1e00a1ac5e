// Package testvendor is the vendor of the tests, both of its sides: what it delivers by
// webhook, encrypted and signed as a vendor does, and the program it gives to its
// customers, which speaks for both parties of a real threshold signature. The program has
// the delegate's share from sigild and asks its service, a file, for the other one.
//
// It refuses API keys and tokens that are not its service's. Only tests may import it.
package testvendor

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/mpc"
	_ "github.com/sigild/sigild/mpc/engines/frost" // the engines of its wallets
	_ "github.com/sigild/sigild/mpc/engines/gg18"
)

// Service is the file: one of the vendor's wallets, in JSON.
type Service struct {
	Set mpc.ShareSet `json:"set"`
	// Server is the server's share.
	Server []byte `json:"server"`
	// APIKey and Token are who may sign; another key has been revoked at the vendor's.
	APIKey string `json:"api_key"`
	Token  string `json:"token"`
	Mood   Mood   `json:"mood"`
	// Wallets, if there are any, are the vendor's by their ids, in place of Set and Server.
	// Each API key that [APIKey] makes opens them, and says the mood.
	Wallets map[string]Wallet `json:"wallets,omitempty"`
}

// Wallet is one of several wallets of a service: its set, and the server's share.
type Wallet struct {
	Set    mpc.ShareSet `json:"set"`
	Server []byte       `json:"server"`
}

// APIKey opens a service's Wallets, in a mood; name tells it from others.
func APIKey(mood Mood, name string) string { return "dyn_" + string(mood) + "_" + name }

// Mood is how the program behaves; without one, well.
type Mood string

// The moods.
const (
	// Wrong signs something else.
	Wrong Mood = "wrong"
	// Chatty talks too much.
	Chatty Mood = "chatty"
	// Hanging never answers, ignores SIGTERM, and leaves a process that hides and does too.
	Hanging Mood = "hang"
	// Leaking writes what it got to standard error, and then signs.
	Leaking Mood = "leak"
	// Down refuses every key.
	Down Mood = "down"
)

// Save writes the file.
func (s Service) Save(path string) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o644)
}

// lingering is the argument of the process that hides.
const lingering = "linger"

// Main is the program; its argument is the service's file. It returns the exit code.
func Main(args []string) int {
	if len(args) == 1 && args[0] == lingering {
		linger()
	}
	if len(args) != 1 {
		return 2
	}
	if err := sign(args[0]); err != nil {
		fmt.Fprintln(os.Stderr, "vendor:", err) // nobody sees this
		return 1
	}
	return 0
}

func linger() {
	signal.Ignore(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
	for {
		time.Sleep(time.Hour)
	}
}

func sign(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var v Service
	if err := json.Unmarshal(text, &v); err != nil {
		return err
	}
	var parts [4][]byte // request, share, API key, token
	for i := range parts {
		var n uint32
		if err := binary.Read(os.Stdin, binary.BigEndian, &n); err != nil {
			return err
		}
		parts[i] = make([]byte, n)
		if _, err := io.ReadFull(os.Stdin, parts[i]); err != nil {
			return err
		}
	}
	var share struct {
		SecretShare []byte `json:"secretShare"`
	}
	var r struct {
		Scheme chains.Scheme `json:"scheme"`
		Signed []byte        `json:"signed"`
		Wallet string        `json:"wallet_id"`
	}
	if err := errors.Join(json.Unmarshal(parts[1], &share), json.Unmarshal(parts[0], &r)); err != nil {
		return err
	}
	if w, ok := v.Wallets[r.Wallet]; ok {
		if words := strings.SplitN(string(parts[2]), "_", 3); len(words) == 3 && words[0] == "dyn" {
			v.Set, v.Server, v.APIKey, v.Mood = w.Set, w.Server, string(parts[2]), Mood(words[1])
		}
	}
	if string(parts[2]) != v.APIKey || string(parts[3]) != v.Token || v.Mood == Down {
		return errors.New("the service refuses this key")
	}
	switch v.Mood {
	case Wrong:
		r.Signed = bytes.Repeat([]byte{7}, 32)
	case Chatty:
		fmt.Println(strings.Repeat("share ", 2000))
	case Leaking:
		fmt.Fprintf(os.Stderr, "%s %s %s\n", parts[1], parts[2], parts[3])
	case Hanging:
		hidden := syscall.ProcAttr{Sys: &syscall.SysProcAttr{Setsid: true}, Files: []uintptr{0, 1, 2}, Env: os.Environ()}
		if _, err := syscall.ForkExec("/proc/self/exe", []string{"vendor", lingering}, &hidden); err != nil {
			return err
		}
		linger()
	}
	in := chains.SignInput{Scheme: r.Scheme, Message: r.Signed}
	if r.Scheme == chains.ECDSASecp256k1 {
		in = chains.SignInput{Scheme: r.Scheme, Digest: [32]byte(r.Signed)}
	}
	shares := [][]byte{share.SecretShare, v.Server}
	sig, err := mpc.Sign(context.Background(), mpc.SignRequest{Set: v.Set, Shares: shares, Input: in})
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"v": 1, "signature": hex.EncodeToString(sig.Bytes())})
}

// Share is the plaintext of a delivered share that the program understands.
func Share(secret []byte) ([]byte, error) {
	return json.Marshal(map[string]any{"pubkey": struct{}{}, "secretShare": secret})
}

// Envelope encrypts as the vendor does: RSA-OAEP with SHA-256 of a random key,
// AES-256-GCM with a nonce of 16 bytes.
func Envelope(public *rsa.PublicKey, plain []byte) (map[string]any, error) {
	content, iv := make([]byte, 32), make([]byte, 16)
	rand.Read(content)
	rand.Read(iv)
	ek, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public, content, nil)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(content)
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCMWithNonceSize(block, len(iv))
	if err != nil {
		return nil, err
	}
	sealed, b64 := gcm.Seal(nil, iv, plain, nil), base64.RawURLEncoding.EncodeToString
	return map[string]any{"alg": "HYBRID-RSA-AES-256", "iv": b64(iv), "ct": b64(sealed[:len(plain)]), "tag": b64(sealed[len(plain):]), "ek": b64(ek)}, nil
}

// Event is the body of a delivery; number makes its ids.
func Event(name, environment string, number int, data map[string]any) ([]byte, error) {
	return json.Marshal(map[string]any{
		"eventName": name, "eventId": fmt.Sprint("event-", number), "messageId": fmt.Sprint("message-", number), "environmentId": environment,
		"timestamp": time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), "webhookId": "theirs", "userId": nil, "data": data,
	})
}

// MAC is the header of a body, by the webhook's secret.
func MAC(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}
