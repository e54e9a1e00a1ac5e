package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/cmd/config"
	"github.com/sigild/sigild/delegation"
)

// The policy files are read when the store is unsealed, and again at SIGHUP. Bad
// files at SIGHUP change nothing but the status, which says so until good ones are
// loaded; bad files at the unsealing keep the store sealed, since there are no
// earlier ones to go on with.

// policiesInForce are the policy files that judge, and why those that lie there now
// don't; "" when they do.
type policiesInForce struct {
	files *delegation.PolicyFiles
	alarm string
}

// readPolicyFiles reads and compiles what lies in the directory.
func readPolicyFiles(cfg config.Config) (*delegation.PolicyFiles, error) {
	files, err := cfg.ReadPolicyDir()
	if err != nil {
		return nil, err
	}
	var rules []delegation.RuleFile
	for _, f := range files {
		rules = append(rules, delegation.RuleFile{Name: f.Name, Content: f.Content})
	}
	return delegation.CompilePolicyFiles(rules)
}

// reloadAtHangup loads the policy files anew at every SIGHUP, until ctx ends.
func (k *keeper) reloadAtHangup(ctx context.Context) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangup:
			k.reload(ctx)
		}
	}
}

// reload loads the policy files anew. A sealed daemon reads them when it is unsealed.
func (k *keeper) reload(ctx context.Context) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.open == nil {
		return
	}
	r := k.open
	files, err := readPolicyFiles(k.cfg)
	if err == nil {
		err = r.delegation.LoadPolicyFiles(ctx, files)
	}
	if err == nil {
		r.policies.Store(&policiesInForce{files: files})
		k.log.Info("policy files loaded", "files", files.Files())
		return
	}
	alarm := err.Error()
	r.policies.Store(&policiesInForce{r.policies.Load().files, alarm})
	k.log.Error("the policy files are not loaded; those that were there before judge on", "error", err)
	if err := r.delegation.RefusedPolicyFiles(ctx, alarm); err != nil {
		k.log.Error("journaling refused policy files", "error", err)
	}
}

// showPolicyFiles fills in GetStatus.
func (k *keeper) showPolicyFiles(r *rooms) *sigilv1.PolicyFiles {
	if k.cfg.PolicyDir == "" {
		return nil
	}
	now := r.policies.Load()
	hash := now.files.Hash()
	out := &sigilv1.PolicyFiles{Files: uint32(now.files.Files()), Hash: hash[:]}
	if now.alarm != "" {
		out.Alarm = &now.alarm
	}
	return out
}
