package decode

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sigild/sigild/chains"
)

// said is an answer of Lines as a reader sees it.
type said struct {
	ID           any
	OK           bool
	Kind         string
	SigningHash  string `json:"signing_hash"`
	SigningBytes string `json:"signing_bytes"`
	View         map[string]any
	Charges      []map[string]any
	Summary      string
	Opaque       bool
	Error        struct {
		Code, Message string
		Offset        int
	}
}

// ask sends rows through Lines and reads the answers.
func ask(t testing.TB, kind chains.Kind, rows ...string) []said {
	t.Helper()
	k, err := Find(string(kind))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := k.Lines(strings.NewReader(strings.Join(rows, "\n")), &out); err != nil {
		t.Fatal(err)
	}
	var answers []said
	s := bufio.NewScanner(&out)
	s.Buffer(nil, 64<<20)
	for s.Scan() {
		var a said
		if err := json.Unmarshal(s.Bytes(), &a); err != nil {
			t.Fatalf("answer %.200s: %v", s.Text(), err)
		}
		answers = append(answers, a)
	}
	if len(answers) != len(rows) {
		t.Fatalf("%d answers to %d rows", len(answers), len(rows))
	}
	return answers
}

// vectors reads the rows of a file of the room that decodes them, as text and parsed.
func vectors(t testing.TB, room, file string) (texts []string, rows []map[string]any) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "..", "chains", room, "testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSuffix(line, "\n")
		var row map[string]any
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		texts, rows = append(texts, line), append(rows, row)
	}
	if len(rows) == 0 {
		t.Fatalf("%s has no rows", file)
	}
	return texts, rows
}

// goodTx is a transfer of 1 wei on chain 1, as a row.
const goodTx = `{"id":1,"unsigned":"0xdf800182520894d8da6bf26964af9d7eed9e03e53415d37aa960450180018080"}`

func TestBadRowsAreAnsweredInOrder(t *testing.T) {
	good, _ := vectors(t, "evm", "evm_tx.jsonl")
	rows := []string{
		good[0],
		`not JSON`,
		`[1]`,
		`{"id":"cut","unsigned":"0x`,
		`{"id":{"any":["thing",1]},"unsigned":5}`,
		`{"id":"none"}`,
		`{"id":"odd","unsigned":"0x1"}`,
		`{"id":"bare","unsigned":"c0"}`,
		`{"id":"digit","unsigned":"0xzz"}`,
		`{"id":"space","unsigned":" 0xc0"}`,
		`{"id":"empty","unsigned":"0x"}`,
		`{"id":"twice","unsigned":"0x","unsigned":"0x01"}`,
		`{"id":"two"} {"id":"objects"}`,
		good[0],
	}
	answers := ask(t, chains.KindEVMTransaction, rows...)
	for i, a := range answers {
		want := i == 0 || i == len(rows)-1
		if a.OK != want || want && a.SigningHash == "" || !want && (a.Error.Code == "" || a.Error.Message == "") {
			t.Errorf("row %d %s: %+v", i, rows[i], a)
		}
	}
	if a := answers[4]; a.ID.(map[string]any)["any"].([]any)[1] != 1.0 {
		t.Errorf("id came back as %v", a.ID)
	}
	if a := answers[8]; a.Error.Offset != 2 || a.Error.Code != chains.CodeForm {
		t.Errorf("wrong digit: %+v", a.Error)
	}
}

func TestUnknownMembersAreIgnored(t *testing.T) {
	good, _ := vectors(t, "evm", "evm_tx.jsonl")
	row := strings.Replace(good[0], "{", `{"nonsense":[{"unsigned":1}],"from":17,"kind":"solana.message",`, 1)
	row = strings.Replace(row, `"from":"0x`, `"whose":"0x`, 1)
	if a := ask(t, chains.KindEVMTransaction, row)[0]; !a.OK {
		t.Errorf("refused: %+v", a.Error)
	}
}

func TestLongLines(t *testing.T) {
	good, _ := vectors(t, "evm", "evm_tx.jsonl")
	long := strings.Replace(good[0], "{", `{"padding":"`+strings.Repeat("a", 5<<20)+`",`, 1)
	beyond := `{"id":"beyond","unsigned":"0x` + strings.Repeat("00", maxLine/2) + `"}`
	answers := ask(t, chains.KindEVMTransaction, long, beyond, good[1])
	if !answers[0].OK || answers[1].OK || !answers[2].OK {
		t.Errorf("answers: %v %v %v", answers[0].OK, answers[1].Error, answers[2].OK)
	}
}

// A reader that waits for an answer before it sends the next row gets it.
func TestAnswersDoNotWaitForMore(t *testing.T) {
	k, err := Find(string(chains.KindEVMTransaction))
	if err != nil {
		t.Fatal(err)
	}
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- k.Lines(inR, outW) }()
	answers := bufio.NewReader(outR)
	for range 3 {
		if _, err := io.WriteString(inW, `{"id":"x"}`+"\n"); err != nil {
			t.Fatal(err)
		}
		if line, err := answers.ReadString('\n'); err != nil || !strings.Contains(line, `"ok":false`) {
			t.Fatalf("%s, %v", line, err)
		}
	}
	if err := inW.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestSummaryTakesRowsAndBarePayloads(t *testing.T) {
	k, err := Find(string(chains.KindEVMTransaction))
	if err != nil {
		t.Fatal(err)
	}
	_, rows := vectors(t, "evm", "evm_tx.jsonl")
	text, unsigned := "", rows[0]["unsigned"].(string)
	for _, in := range []string{`{"unsigned":"` + unsigned + `"}`, unsigned, "\n " + unsigned + "\n"} {
		s, err := k.Summary([]byte(in))
		if err != nil || !strings.Contains(s, "signing hash: "+rows[0]["signingHash"].(string)) {
			t.Fatalf("%.60s: %s, %v", in, s, err)
		}
		if text != "" && s != text {
			t.Errorf("a row and a bare payload read differently:\n%s\n%s", s, text)
		}
		text = s
	}
	for _, in := range []string{"", "hello", "{}", "0x", `{"unsigned":"0x"}`} {
		if s, err := k.Summary([]byte(in)); err == nil {
			t.Errorf("%q: %s", in, s)
		}
	}
}

func TestKinds(t *testing.T) {
	seen := map[chains.Kind]bool{}
	for _, k := range Kinds() {
		if seen[k.Name] || k.Decode == nil || k.Members == "" || len(k.Roots) == 0 {
			t.Errorf("kind %+v", k)
		}
		seen[k.Name] = true
		names := map[string]string{}
		for root, typ := range k.Roots {
			for _, f := range typ.Fields {
				if other, ok := names[f.Name]; ok {
					t.Errorf("%s: %s and %s both have %s", k.Name, root, other, f.Name)
				}
				names[f.Name] = root
			}
		}
	}
	if _, err := Find("evm.nothing"); err == nil {
		t.Error("found a kind that is none")
	}
}

func FuzzLines(f *testing.F) {
	good, _ := vectors(f, "evm", "evm_tx.jsonl")
	f.Add(0, good[0])
	f.Add(1, goodTx)
	f.Add(2, "{\"id\":\n{}")
	kinds := Kinds()
	f.Fuzz(func(t *testing.T, which int, in string) {
		var out bytes.Buffer
		if err := kinds[uint(which)%uint(len(kinds))].Lines(strings.NewReader(in), &out); err != nil {
			t.Fatal(err)
		}
		rows := 0
		for line := range strings.SplitSeq(in, "\n") {
			if strings.TrimSpace(line) != "" {
				rows++
			}
		}
		answers := 0
		for line := range strings.Lines(out.String()) {
			var a struct {
				ID    json.RawMessage // any number that JSON can spell
				Error struct{ Code string }
			}
			if err := json.Unmarshal([]byte(line), &a); err != nil || a.Error.Code == "internal" {
				t.Fatalf("%q: answer %s, %v", in, line, err)
			}
			answers++
		}
		if answers != rows {
			t.Fatalf("%d answers to %d rows", answers, rows)
		}
	})
}
