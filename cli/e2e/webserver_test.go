package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// webServer is nginx, which serves a directory over HTTP and HTTPS.
type webServer struct {
	host      string
	ports     map[string]string // by scheme
	authority string            // file of the certificate to trust
}

// startWebServer serves dir until the test ends, on loopback of the namespace ns, or
// here if ns is empty. It skips the test where nginx or curl is missing.
func startWebServer(t testing.TB, ns, dir string) *webServer {
	return startWebServerAt(t, ns, "127.0.0.1", dir)
}

func startWebServerAt(t testing.TB, ns, host, dir string) *webServer {
	t.Helper()
	for _, tool := range []string{"nginx", "curl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	own := t.TempDir()
	w := &webServer{host: host, ports: map[string]string{"http": freePort(t), "https": freePort(t)}, authority: filepath.Join(own, "cert.pem")}
	writeCertificate(t, host, w.authority, filepath.Join(own, "key.pem"))
	user := ""
	if os.Getuid() == 0 {
		user = "user root;" // its workers have to read what the test may
	}
	config := fmt.Sprintf(`daemon off; %s worker_processes 2; error_log stderr; pid %[2]s/pid;
events {}
http {
	access_log off; sendfile on; tcp_nopush on;
	client_body_temp_path %[2]s/body; proxy_temp_path %[2]s/proxy; fastcgi_temp_path %[2]s/fastcgi;
	uwsgi_temp_path %[2]s/uwsgi; scgi_temp_path %[2]s/scgi;
	server {
		listen %[3]s:%[4]s; listen %[3]s:%[5]s ssl;
		ssl_certificate %[6]s; ssl_certificate_key %[2]s/key.pem;
		root %[7]q;
	}
}
`, user, own, host, w.ports["http"], w.ports["https"], w.authority, dir)
	path := filepath.Join(own, "nginx.conf")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	startServer(t, ns, net.JoinHostPort(host, w.ports["http"]), "nginx", "-p", own, "-c", path, "-e", "stderr")
	return w
}

// curl is the command that fetches a file of the directory.
func (w *webServer) curl(scheme, name, output string) []string {
	return []string{"curl", "--silent", "--show-error", "--fail", "--cacert", w.authority, "-o", output,
		fmt.Sprintf("%s://%s:%s/%s", scheme, w.host, w.ports[scheme], name)}
}

// startRsync serves dir as the module "files" until the test ends, and returns the
// module's URL. It skips the test where rsync is missing.
func startRsync(t testing.TB, ns, host, dir string) string {
	t.Helper()
	if _, err := exec.LookPath("rsync"); err != nil {
		t.Skip("rsync is not installed")
	}
	own := t.TempDir()
	path, port := filepath.Join(own, "rsyncd.conf"), freePort(t)
	config := fmt.Sprintf("pid file = %s/pid\nlog file = %s/log\nuse chroot = no\n", own, own)
	if os.Getuid() == 0 {
		config += "uid = 0\ngid = 0\n" // it has to read what the test may
	}
	config += fmt.Sprintf("[files]\npath = %s\nread only = yes\n", dir)
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	at := net.JoinHostPort(host, port)
	startServer(t, ns, at, "rsync", "--daemon", "--no-detach", "--config", path, "--address", host, "--port", port)
	return "rsync://" + at + "/files/"
}

// startServer runs a server in a namespace until the test ends, and returns when
// it listens at address.
func startServer(t testing.TB, ns, address string, args ...string) {
	t.Helper()
	c := commandIn(t.Context(), ns, args...)
	stderr := &lockedBuffer{}
	c.Stdout, c.Stderr = stderr, stderr
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = 10 * time.Second
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { c.Wait(); close(ended) }()
	t.Cleanup(func() { c.Process.Signal(syscall.SIGTERM); <-ended })
	for deadline := time.Now().Add(10 * time.Second); !listens(ns, address); {
		select {
		case <-ended:
			t.Fatalf("%s ended: %s", args[0], stderr)
		case <-time.After(5 * time.Millisecond): // until it is asked again
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not listen: %s", args[0], stderr)
		}
	}
}

// listens tells whether somebody listens at a TCP address, in a namespace by ss.
func listens(ns, address string) bool {
	if ns != "" {
		out, err := exec.Command("ip", "netns", "exec", ns, "ss", "-Htln").Output()
		return err == nil && strings.Contains(string(out), address+" ")
	}
	c, err := net.Dial("tcp", address)
	if err == nil {
		c.Close()
	}
	return err == nil
}

// freePort is a TCP port that nobody listens on.
func freePort(t testing.TB) string {
	t.Helper()
	_, port, err := net.SplitHostPort(freeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// writeCertificate makes a certificate for an IP address that vouches for itself.
func writeCertificate(t testing.TB, host, certPath, keyPath string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, IPAddresses: []net.IP{net.ParseIP(host)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{certPath: {Type: "CERTIFICATE", Bytes: cert}, keyPath: {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
