package delegation

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/signing"
	"github.com/sigild/sigild/vault"
)

// Files of rules that the owner of the host lays beside the configuration. They
// judge every request of every organization, so they may only take away: a file
// with an ALLOW policy is refused, and so is one that names a delegation, which is
// an organization's own. A limit in them bounds each organization for itself: a sum
// over all of them would tell one what the others spend.

// RuleFile is one file, in the form of policy.ParseRules.
type RuleFile struct {
	// Name is for people and the journal.
	Name    string
	Content []byte
}

// PolicyFiles are the files of the appliance's directory, compiled; immutable.
type PolicyFiles struct {
	files []RuleFile
	rules *policy.Set
}

// noFiles is the layer of an appliance without files.
var noFiles = func() *PolicyFiles { empty, _ := policy.Compile(nil, nil, nil); return &PolicyFiles{rules: empty} }()

// CompilePolicyFiles reads and compiles files, all or none. The error names the
// file and the rule.
func CompilePolicyFiles(files []RuleFile) (*PolicyFiles, error) {
	var policies []policy.Policy
	var limits []policy.Limit
	from := map[string]string{}
	check := func(file, id, delegation string) error {
		switch {
		case len(id) > maxRuleID:
			return fmt.Errorf("%s: %.80q: an id has at most %d characters here", file, id, maxRuleID)
		case delegation != "":
			return fmt.Errorf("%s: %q is for one delegation; files of the appliance judge all organizations", file, id)
		}
		from[signing.AppliancePrefix+id] = file
		return nil
	}
	for _, f := range files {
		ps, ls, err := policy.ParseRules(f.Content)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		for _, p := range ps {
			if p.Effect == policy.Allow {
				return nil, fmt.Errorf("%s: %q allows; files of the appliance may deny or limit, never allow", f.Name, p.ID)
			}
			if err := check(f.Name, p.ID, p.Scope.Delegation); err != nil {
				return nil, err
			}
			p.ID = signing.AppliancePrefix + p.ID
			policies = append(policies, p)
		}
		for _, l := range ls {
			if err := check(f.Name, l.ID, l.Delegation); err != nil {
				return nil, err
			}
			l.ID = signing.AppliancePrefix + l.ID
			limits = append(limits, l)
		}
	}
	set, problems := policy.Compile(policies, limits, nil)
	if set == nil {
		for _, d := range problems {
			if d.Severity == policy.SeverityError {
				return nil, fmt.Errorf("%s: %v", from[d.ID], d)
			}
		}
		return nil, errors.New("the rules do not compile")
	}
	return &PolicyFiles{files: files, rules: set}, nil
}

// Hash names what the files say.
func (f *PolicyFiles) Hash() [32]byte { return f.rules.Hash() }

// Files is how many files there are.
func (f *PolicyFiles) Files() int { return len(f.files) }

// policyFilesMethod is what the journal calls a load of the files.
const policyFilesMethod = "appliance/policy-files"

// LoadPolicyFiles makes f what judges from now on, for requests under way as in
// [Service.SetDocuments]. What differs from the files that the journal last told of
// is journaled; durable on return.
func (s *Service) LoadPolicyFiles(ctx context.Context, f *PolicyFiles) error {
	s.refusedFiles.loaded()
	hash := fmt.Sprintf("%x", f.Hash())
	if known := s.book.appliance().PolicyFiles; known == hash || known == "" && f.Files() == 0 {
		s.book.mu.Lock()
		defer s.book.mu.Unlock()
		s.book.files = f
		return nil
	}
	err := s.vault.UpdateAlone(ctx, func(tx *vault.Tx) error {
		a := *s.book.appliance()
		a.PolicyFiles = hash
		s.book.change(tx, func() { s.book.self, s.book.files = &a, f })
		e := journal.Entry{Kind: journal.KindAct, Method: policyFilesMethod, Outcome: "loaded", PolicySet: hash, Facts: map[string]string{"files": fmt.Sprint(f.Files())}}
		for _, file := range f.files {
			e.Facts["file."+file.Name] = fmt.Sprintf("%x", sha256.Sum256(file.Content))
		}
		if err := store(tx, vault.TypeAppliance, applianceRecord, &a); err != nil {
			return err
		}
		_, err := s.journal.Append(tx, e)
		return err
	})
	if err != nil {
		return fmt.Errorf("loading the policy files: %w", err)
	}
	return nil
}

// refusedFiles is what the journal was last told of files that were not loaded.
type refusedFiles struct {
	mu  sync.Mutex
	why string
	at  time.Time
}

// refusedEvery is how often the journal is told of refused files at most: whoever may
// send the signal can't fill it.
const refusedEvery = time.Minute

// news reports whether the journal is to be told, and notes that it was.
func (r *refusedFiles) news(why string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if why == r.why || !r.at.IsZero() && now.Before(r.at.Add(refusedEvery)) {
		return false
	}
	r.why, r.at = why, now
	return true
}

// loaded forgets what was refused: the same mistake later is news again.
func (r *refusedFiles) loaded() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.why = ""
}

// RefusedPolicyFiles journals that the files as they lie there were not loaded, and
// why; what judged before judges on. Durable on return. The same refusal again, and one
// within a minute of another, is in the log and the status alone.
func (s *Service) RefusedPolicyFiles(ctx context.Context, why string) error {
	if !s.refusedFiles.news(why, s.now()) {
		return nil
	}
	err := s.vault.UpdateAlone(ctx, func(tx *vault.Tx) error {
		e := journal.Entry{Kind: journal.KindAct, Method: policyFilesMethod, Outcome: "refused", Reason: why, PolicySet: s.book.appliance().PolicyFiles}
		_, err := s.journal.Append(tx, e)
		return err
	})
	if err != nil {
		return fmt.Errorf("journaling refused policy files: %w", err)
	}
	return nil
}
