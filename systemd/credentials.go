package systemd

import "os"

// CredentialsDirectory is the folder with what LoadCredential= and
// LoadCredentialEncrypted= in the unit brought, one file a name, readable by us
// alone and never on a disk (systemd.exec(5)); "" if the unit brought nothing.
func CredentialsDirectory() string { return os.Getenv("CREDENTIALS_DIRECTORY") }
