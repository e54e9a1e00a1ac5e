//go:build vm

package packaging

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// vmPackages of the emulated machine's tree: a kernel, and what systemd and tpm2-tools
// need for a TPM.
const vmPackages = "systemd,systemd-sysv,dbus,init-system-helpers,udev,kmod,initramfs-tools,linux-image-cloud-amd64," +
	"tpm2-tools,tpm-udev,libtss2-rc0,libtss2-esys-3.0.2-0,libtss2-mu0,libtss2-tcti-device0,man-db"

// vmUnit runs our script at each boot and switches the machine off.
const vmUnit = `[Unit]
Description=the test
After=multi-user.target

[Service]
Type=oneshot
ExecStart=/bin/bash /root/test.sh
ExecStopPost=/bin/systemctl --no-block poweroff
StandardOutput=file:/dev/ttyS1
StandardError=inherit
WorkingDirectory=/root

[Install]
WantedBy=graphical.target
`

// vmBoot bounds one boot and its script. A loaded machine without hardware
// virtualization takes minutes.
const vmBoot = 25 * time.Minute

// TestInAVirtualMachine is the package on a kernel of its own: /dev/tpmrm0 and its
// resource manager, systemd's credentials under host key and TPM, a store that opens
// in approved boot states alone. It boots twice, with the same disk and TPM.
func TestInAVirtualMachine(t *testing.T) {
	b := built(t)
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	began := time.Now()
	step := func(what string) { t.Logf("%6.1f s  %s", time.Since(began).Seconds(), what) }

	command(t, "cp", "-a", debianTree(t, vmPackages), root)
	for name, text := range map[string][]byte{
		"root/sigild.deb": read(t, b.Deb), "root/test.sh": read(t, "testdata/vm.sh"),
		"etc/systemd/system/sigild-test.service": []byte(vmUnit), "etc/fstab": []byte("/dev/vda / ext4 defaults 0 1\n"),
	} {
		if err := os.WriteFile(filepath.Join(root, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	wants := filepath.Join(root, "etc/systemd/system/graphical.target.wants")
	if err := os.MkdirAll(wants, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../sigild-test.service", filepath.Join(wants, "sigild-test.service")); err != nil {
		t.Fatal(err)
	}
	m := vm{t: t, dir: dir}
	m.kernel, m.initrd = one(t, root, "boot/vmlinuz-*"), one(t, root, "boot/initrd.img-*")
	disk := filepath.Join(dir, "disk")
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(disk, 2<<30); err != nil {
		t.Fatal(err)
	}
	command(t, "mke2fs", "-q", "-F", "-t", "ext4", "-d", root, disk)
	if err := os.Mkdir(filepath.Join(dir, "tpm"), 0o700); err != nil {
		t.Fatal(err)
	}
	step("disk made")
	for boot, marks := range [][]string{
		{"device", "installed", "credential", "prepared", "approved", "initialised", "serving", "changed PCR refused", "approved again", "revoked", "credential refused"},
		{"serving after a boot", "sandboxed", "attested"},
	} {
		said := m.boot()
		t.Logf("boot %d:\n%s", boot+1, said)
		for _, mark := range marks {
			if !strings.Contains(said, "\nPASS "+mark+"\n") {
				t.Fatalf("boot %d did not pass %q", boot+1, mark)
			}
		}
		if !strings.Contains(said, "\nDONE\n") {
			t.Fatalf("boot %d did not end as it should", boot+1)
		}
		step("booted and tested")
	}
}

// one is the one file of a pattern.
func one(t testing.TB, root, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root, pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %v, %v, want one file", pattern, found, err)
	}
	return found[0]
}

// vm is an emulated machine.
type vm struct {
	t                   testing.TB
	dir, kernel, initrd string
}

// boot switches TPM and machine on, waits until the machine is off, and returns what
// its script said.
func (m vm) boot() string {
	m.t.Helper()
	path := func(name string) string { return filepath.Join(m.dir, name) }
	ctx, cancel := context.WithTimeout(m.t.Context(), vmBoot)
	defer cancel()
	// The TPM ends with the machine. QEMU starts it, so no --flags.
	tpm := exec.CommandContext(ctx, "swtpm", "socket", "--tpm2", "--tpmstate", "dir="+path("tpm"), "--ctrl", "type=unixio,path="+path("tpm.sock"))
	tpm.Stdout, tpm.Stderr = os.Stderr, os.Stderr
	if err := tpm.Start(); err != nil {
		m.t.Fatal(err)
	}
	defer tpm.Wait()
	defer tpm.Process.Kill()
	for {
		if _, err := os.Stat(path("tpm.sock")); err == nil {
			break
		}
		if ctx.Err() != nil {
			m.t.Fatal("swtpm does not listen")
		}
		time.Sleep(20 * time.Millisecond)
	}
	for _, name := range []string{"console", "said"} {
		if err := os.WriteFile(path(name), nil, 0o600); err != nil {
			m.t.Fatal(err)
		}
	}
	qemu := exec.CommandContext(ctx, "qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024",
		"-display", "none", "-monitor", "none", "-no-reboot", "-nic", "none", "-kernel", m.kernel, "-initrd", m.initrd,
		"-append", "root=/dev/vda rw console=ttyS0 tsc=unstable systemd.unit=graphical.target",
		"-drive", "file="+path("disk")+",format=raw,if=virtio,cache=writeback",
		"-chardev", "socket,id=ct,path="+path("tpm.sock"), "-tpmdev", "emulator,id=tpm0,chardev=ct", "-device", "tpm-crb,tpmdev=tpm0",
		"-device", "virtio-rng-pci", "-serial", "file:"+path("console"), "-serial", "file:"+path("said"))
	out, err := qemu.CombinedOutput()
	said := "\n" + strings.ReplaceAll(string(read(m.t, path("said"))), "\r", "")
	if err != nil || ctx.Err() != nil {
		m.t.Fatalf("the machine: %v (%v): %s\nit said:%s\nits console:\n%s", err, context.Cause(ctx), out, said, read(m.t, path("console")))
	}
	if !strings.Contains(said, "\nDONE\n") {
		m.t.Logf("its console:\n%s", read(m.t, path("console")))
	}
	return said
}
