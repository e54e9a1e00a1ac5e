# Runs inside the emulated machine at each boot, as root; vm_test.go reads what it says.
set -euo pipefail
trap 'echo "FAILED in line $LINENO"; journalctl -b -u sigild --no-pager | tail -n 40' ERR
pass() { echo "PASS $1"; }
no() { if "$@"; then return 1; fi; }
waits() { # waits N COMMAND…: until it succeeds
	local n=$1 i
	shift
	for ((i = 0; i < n; i++)); do
		if "$@"; then return 0; fi
		sleep 1
	done
	return 1
}
status() { sigilctl status 2>&1 || true; }
says() { status | grep -q "$1"; }
secret=LoadCredentialEncrypted=tpm-secret:/etc/credstore.encrypted/sigild.tpm-secret
# With the credential, as the unit gets it.
with() { systemd-run --quiet --pipe --wait --collect --working-directory=/root --property="$secret" "$@"; }

if [ ! -e /root/second ]; then
	touch /root/second
	uname -sr
	test -c /dev/tpmrm0
	test "$(stat -c %U:%G /dev/tpmrm0)" = tss:tss || stat /dev/tpmrm0
	pass device
	dpkg -i /root/sigild.deb
	pass installed

	mkdir -p /etc/credstore.encrypted
	head -c 32 /dev/urandom | systemd-creds encrypt --with-key=host+tpm2 --tpm2-pcrs=7 --name=tpm-secret - /etc/credstore.encrypted/sigild.tpm-secret
	install -D -m 0644 -t /etc/systemd/system/sigild.service.d /usr/share/doc/sigild/examples/tpm.conf
	sed -i 's/^#LoadCredentialEncrypted/LoadCredentialEncrypted/' /etc/systemd/system/sigild.service.d/tpm.conf
	grep -qx "$secret" /etc/systemd/system/sigild.service.d/tpm.conf
	systemctl daemon-reload
	pass credential

	cat >/etc/sigild/sigild.yaml <<-END
		roles:
		  operator: {uids: [0]}
		pre_parameters: {target: 0}
		provider:
		  tpm:
		    path: /dev/tpmrm0
		    secret_file: credential:tpm-secret
	END
	with sigilctl pcr prepare | tee lines
	sed 1d lines >>/etc/sigild/sigild.yaml
	sigilctl credential create --purpose operator --name alice --out alice
	sigilctl credential create --purpose pcr-approval --name bob --out bob
	install -m 0644 bob.json /etc/sigild/pcr-approver.json
	install -d -m 0755 /etc/sigild/pcr-approvals
	pass prepared
	with sigilctl pcr show --pcrs 0,7,11 --out request.json
	sigilctl pcr approve --key bob.key --out /etc/sigild/pcr-approvals/first.json request.json
	chmod 0644 /etc/sigild/pcr-approvals/first.json
	pass approved
	with sigilctl init --operator alice.json --quorum 1
	chown -R sigild: /var/lib/sigild
	pass initialised
	systemctl start sigild.service
	waits 60 says 'state *serving'
	status
	pass serving

	# Something else was measured: sealed, and it says what.
	tpm2_pcrextend 11:sha256=$(printf '%064x' 1)
	systemctl restart sigild.service
	waits 60 says 'sealed: .*PCR 11 is [0-9a-f]* instead of'
	status
	pass 'changed PCR refused'
	with sigilctl pcr show --pcrs 0,7,11 --ahead --out request2.json
	sigilctl pcr approve --key bob.key --out /etc/sigild/pcr-approvals/second.json request2.json
	chmod 0644 /etc/sigild/pcr-approvals/second.json
	waits 90 says 'state *serving'
	pass 'approved again'
	with sigilctl pcr revoke
	with sigilctl pcr show --pcrs 11 | tee shown
	grep -q 'first.json .*revoked' shown
	grep -q 'second.json *opens the store' shown
	systemctl restart sigild.service
	waits 60 says 'state *serving'
	pass revoked

	# The next boot measures as the first did; that state is approved anew.
	sed -e 's/"sequence": .*/"sequence": 1000,/' request.json >request3.json
	sigilctl pcr approve --key bob.key --out /etc/sigild/pcr-approvals/third.json request3.json
	chmod 0644 /etc/sigild/pcr-approvals/third.json
	# The secret itself is bound to PCR 7 by systemd.
	systemctl stop sigild.socket sigild-admin.socket sigild.service
	tpm2_pcrextend 7:sha256=$(printf '%064x' 1)
	no systemctl start sigild.service
	test "$(systemctl show -P ExecMainStatus sigild.service)" = 243
	pass 'credential refused'
else
	waits 120 says 'state *serving'
	status
	pass 'serving after a boot'
	pid=$(systemctl show -P MainPID sigild.service)
	test "$(stat -c %U "/proc/$pid")" = sigild
	grep -q 'Seccomp:.*2' "/proc/$pid/status"
	test -c /dev/tpm0 && test -b /dev/vda
	test -c "/proc/$pid/root/dev/tpmrm0"
	no test -e "/proc/$pid/root/dev/tpm0"
	no test -e "/proc/$pid/root/dev/vda"
	pass sandboxed
	with sigilctl attest --nonce 00112233445566778899aabbccddeeff --pcrs 0,7,11 --out evidence.json
	sigilctl attest challenge --out challenge evidence.json
	with sigilctl attest answer --out answer challenge.json
	sigilctl attest verify --nonce 00112233445566778899aabbccddeeff --secret challenge.secret --answer answer evidence.json
	pass attested
fi
echo DONE
