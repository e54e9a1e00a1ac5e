package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/chains/solana"
	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/journal"
)

// payee is the one address the ether policy pays.
var payee = common.HexToAddress("0x87cef699dA7Eb1D586aB06774fBDe81556e13243").Hex()

var (
	solanaPayeeKey = [32]byte{7, 7, 7, 7, 1}
	blockhash      = [32]byte{9, 9, 9, 9, 2}
)

// solanaPayee is the one account the Solana policy pays.
func solanaPayee() string { return solana.Address(solanaPayeeKey) }

// signEVM asks for one transfer.
func (s *scene) signEVM(ctx context.Context, a *account, id string, nonce uint64, to string, wei *big.Int) (*sigilv1.SignResponse, error) {
	unsigned, err := evmTransfer(1, nonce, common.HexToAddress(to), wei)
	if err != nil {
		return nil, err
	}
	return s.app.WithAPIKey(a.apiKey).Signing().Sign(ctx, &sigilv1.SignRequest{
		RequestId: id, WalletId: a.wallet, Payload: &sigilv1.SignRequest_EvmTransaction{EvmTransaction: unsigned},
	})
}

func (a *account) solanaPayment(to [32]byte, lamports uint64) []byte {
	return solanaTransfer([32]byte(a.publicKey), to, blockhash, lamports)
}

func (s *scene) signSolana(ctx context.Context, a *account, id string, message []byte) (*sigilv1.SignResponse, error) {
	return s.app.WithAPIKey(a.apiKey).Signing().Sign(ctx, &sigilv1.SignRequest{
		RequestId: id, WalletId: a.wallet, Payload: &sigilv1.SignRequest_SolanaMessage{SolanaMessage: message},
	})
}

// sign is step 4: one transfer on each chain, checked by others' code.
func (s *scene) sign(ctx context.Context) error {
	step(4, "An allowed transfer on each chain, signed over gRPC with the wallet API key")
	amount := ether(2, 5)
	out, err := s.signEVM(ctx, s.eth, "pay-eth-1", 0, payee, amount)
	if err != nil {
		return err
	}
	if err := checkEVM(out.GetSignedTransaction(), common.HexToAddress(s.eth.address), common.HexToAddress(payee), amount, out.GetTransactionId()); err != nil {
		return err
	}
	say("signed   %s", out.GetSummary())
	say("         %s", "0x"+hex.EncodeToString(out.GetSignedTransaction()))
	say("         go-ethereum recovers the sender %s", s.eth.address)

	message := s.sol.solanaPayment(solanaPayeeKey, 250_000_000)
	out, err = s.signSolana(ctx, s.sol, "pay-sol-1", message)
	if err != nil {
		return err
	}
	if err := checkSolana(out.GetSignedTransaction(), message, [32]byte(s.sol.publicKey)); err != nil {
		return err
	}
	s.last = "pay-sol-1"
	say("signed   %s", out.GetSummary())
	say("         %s", hex.EncodeToString(out.GetSignedTransaction()))
	say("         crypto/ed25519 accepts it for %s", s.sol.address)
	return nil
}

// refuse is step 5: everything that must not be signed.
func (s *scene) refuse(ctx context.Context) error {
	step(5, "What is refused, with its reason and the rule that decided")
	other := common.HexToAddress("0x00000000000000000000000000000000deadbeef").Hex()
	_, err := s.signEVM(ctx, s.eth, "no-1", 1, other, ether(1, 10))
	if err := expectRefusal("another recipient", "POLICY_DENIED", err); err != nil {
		return err
	}
	_, err = s.signEVM(ctx, s.eth, "no-2", 1, payee, ether(3, 5))
	if err := expectRefusal("above the amount", "POLICY_DENIED", err); err != nil {
		return err
	}
	if _, err := s.signEVM(ctx, s.eth, "pay-eth-2", 1, payee, ether(2, 5)); err != nil {
		return err
	}
	_, err = s.signEVM(ctx, s.eth, "no-3", 2, payee, ether(2, 5))
	if err := expectRefusal("a third 0.4 ether within the day", "LIMIT_EXCEEDED", err); err != nil {
		return err
	}
	if after := client.RetryAfter(err); after <= 23*time.Hour || after > 24*time.Hour {
		return fmt.Errorf("the limit's refusal says to come back in %s, not in a day", after)
	}
	say("         it says when to come back: in %s", client.RetryAfter(err).Round(time.Minute))
	_, err = s.app.WithAPIKey(s.eth.apiKey).Signing().Sign(ctx, &sigilv1.SignRequest{
		RequestId: "no-4", WalletId: s.eth.wallet, Payload: &sigilv1.SignRequest_RawDigest{RawDigest: bytes.Repeat([]byte{0xab}, 32)},
	})
	if err := expectRefusal("a raw digest", "RAW_DIGEST_DENIED", err); err != nil {
		return err
	}
	if wait := time.Until(s.short.expires); wait > 0 {
		time.Sleep(wait + 50*time.Millisecond)
	}
	_, err = s.signSolana(ctx, s.short, "no-5", s.short.solanaPayment(solanaPayeeKey, 1))
	if err := expectRefusal("an expired delegation", "DELEGATION_EXPIRED", err); err != nil {
		return err
	}
	wrong := *s.sol
	wrong.apiKey = bytes.Clone(s.sol.apiKey)
	wrong.apiKey[len(wrong.apiKey)-2] ^= 1
	_, err = s.signSolana(ctx, &wrong, "no-6", s.sol.solanaPayment(solanaPayeeKey, 1))
	if err := expectRefusal("a wrong API key", "API_KEY_INVALID", err); err != nil {
		return err
	}
	answer, err := askStranger()
	if err != nil {
		return err
	}
	if err := check(answer == "CALLER_NOT_ALLOWED", "the stranger was told %q", answer); err != nil {
		return err
	}
	say("refused  %-34s %s", fmt.Sprintf("uid %d, whom the socket's mode lets in", strangerUID), answer)
	return expectRefusal("a stamp over other bytes", "STAMP_INVALID", s.stampOtherBytes(ctx))
}

// stampOtherBytes takes a good stamp off one request and puts it on another.
func (s *scene) stampOtherBytes(ctx context.Context) error {
	var stolen metadata.MD
	thief := grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		if md, ok := metadata.FromOutgoingContext(ctx); ok && len(md.Get("sigild-stamp-bin")) > 0 {
			if stolen == nil {
				stolen = md.Copy()
			} else {
				ctx = metadata.NewOutgoingContext(ctx, stolen)
			}
		}
		return invoke(ctx, method, req, reply, cc, opts...)
	})
	c, err := client.Dial(filepath.Join(s.dir, "run", "app.sock"), thief)
	if err != nil {
		return err
	}
	defer c.Close()
	ask := func(wallet string) error {
		_, err := c.WithStamps(s.organization, s.user).Wallets().GetWallet(ctx, &sigilv1.GetWalletRequest{OrganizationId: s.organization, WalletId: wallet})
		return err
	}
	if err := ask(s.eth.wallet); err != nil {
		return fmt.Errorf("the honest request failed: %w", err)
	}
	return ask(s.sol.wallet)
}

// stranger is the other scratch user: it waits for a line and knocks.
func stranger(socket string) error {
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return nil // the play ended before it needed us
	}
	c, err := client.Dial(socket)
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err = c.WithAPIKey([]byte("sgk_aaaaaaaaaaaaaaaaaaaaaaaaaa_0123456789012345678901234567890123456789012")).Signing().Sign(ctx, &sigilv1.SignRequest{RequestId: "knock", WalletId: "wal_x"})
	if reason := client.Reason(err); reason != "" {
		fmt.Println(reason)
		return nil
	}
	fmt.Println("no reason:", err)
	return nil
}

// acknowledged is one answer the load had received.
type acknowledged struct {
	id        string
	message   []byte
	signature []byte
}

// crash is step 7: kill -9 under load, and nothing that was acknowledged is lost.
func (s *scene) crash(ctx context.Context) (err error) {
	step(7, "kill -9 in the middle of signing load")
	var mu sync.Mutex // guards got
	var got []acknowledged
	enough := make(chan struct{})
	var workers sync.WaitGroup
	for w := range 4 {
		workers.Go(func() {
			for n := 0; ; n++ {
				id := fmt.Sprintf("load-%d-%d", w, n)
				message := s.sol.solanaPayment(solanaPayeeKey, 1000+uint64(w*100_000+n))
				out, err := s.signSolana(ctx, s.sol, id, message)
				if err != nil {
					return // the daemon is gone
				}
				mu.Lock()
				got = append(got, acknowledged{id, message, out.GetSignature()})
				if len(got) == 12 {
					close(enough)
				}
				mu.Unlock()
			}
		})
	}
	select {
	case <-enough:
	case <-time.After(time.Minute):
		return errors.New("the load did not get 12 signatures within a minute")
	}
	if err := s.daemon.kill(); err != nil {
		return err
	}
	workers.Wait()
	say("killed pid %d after %d acknowledged signatures, with 4 requests under way", s.daemon.cmd.Process.Pid, len(got))
	start := time.Now()
	if s.daemon, err = startDaemon(s.dir); err != nil {
		return err
	}
	say("started again as pid %d, ready in %d ms", s.daemon.cmd.Process.Pid, time.Since(start).Milliseconds())
	for _, a := range got {
		out, err := s.signSolana(ctx, s.sol, a.id, a.message)
		if err != nil {
			return fmt.Errorf("asking %s again: %w", a.id, err)
		}
		if err := check(bytes.Equal(out.GetSignature(), a.signature), "%s has another signature after the crash", a.id); err != nil {
			return err
		}
	}
	say("all %d, asked again, return the byte-identical signature", len(got))
	if err := s.checkEntries(ctx, got); err != nil {
		return err
	}
	message := s.sol.solanaPayment(solanaPayeeKey, 5000)
	if _, err := s.signSolana(ctx, s.sol, "after-the-crash", message); err != nil {
		return err
	}
	s.last = "after-the-crash"
	say("signing goes on")
	return nil
}

// checkEntries looks for the audit entry and the charge of every acknowledged request.
func (s *scene) checkEntries(ctx context.Context, got []acknowledged) error {
	text, err := sigilctl(ctx, s.dir, "audit", "list")
	if err != nil {
		return err
	}
	approved, signed := map[string]int{}, map[string]bool{}
	for line := range strings.Lines(text) {
		var e journal.Entry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			return fmt.Errorf("reading the journal's listing: %w", err)
		}
		switch e.Kind {
		case journal.KindApproved:
			approved[e.RequestID] = len(e.Charges)
		case journal.KindSigned:
			signed[e.RequestID] = true
		}
	}
	for _, a := range got {
		if err := check(approved[a.id] == 2 && signed[a.id], "%s: %d charges in the journal, signed %v", a.id, approved[a.id], signed[a.id]); err != nil {
			return err
		}
	}
	say("each has its approval, its two charges (transfer and fee) and its signature in the journal")
	return nil
}

// audit is step 8: the journal verifies, and one changed byte is found.
func (s *scene) audit(ctx context.Context) error {
	step(8, "The journal, verified off-line")
	if err := s.daemon.stop(); err != nil {
		return err
	}
	s.daemon = nil
	say("the daemon stopped by itself on SIGTERM")
	text, err := sigilctl(ctx, s.dir, "audit", "verify")
	if err != nil {
		return err
	}
	for line := range strings.Lines(text) {
		say("%s", strings.TrimSpace(line))
	}
	db, err := os.ReadFile(filepath.Join(s.dir, "state", "vault.db"))
	if err != nil {
		return err
	}
	at := bytes.LastIndex(db, []byte(`"request_id":"`+s.last+`"`))
	if at < 0 {
		return fmt.Errorf("the entry of %s is not in the database as text", s.last)
	}
	db[at+len(`"request_id":"`)] ^= 1
	edited := filepath.Join(s.dir, "edited.db")
	if err := os.WriteFile(edited, db, 0o600); err != nil {
		return err
	}
	text, err = sigilctl(ctx, s.dir, "audit", "verify", "--db", edited)
	if err == nil {
		return errors.New("the journal verifies with one byte changed")
	}
	if err := check(strings.Contains(text, "at entry "), "the verifier does not name the entry: %s", text); err != nil {
		return err
	}
	say("with one byte of a copy changed:")
	for line := range strings.Lines(text) {
		say("  %s", strings.TrimSpace(line))
	}
	return nil
}
