// A TLS 1.3 peer over Go's standard library, for the interop tests: a server, or with -connect a client.
//
// It says which address it listens on, then per connection "group 4588" (the code point) once the handshake is
// complete, and "ech true resumed false", or "error ..." when it fails. The server sends back what it receives. The
// client sends one line and prints the answer, on as many connections as it is told, and resumes if it can.
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"
)

func check(err error) {
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
}

func serve(config *tls.Config, certificates, keys []string) {
	for number, certificate := range certificates {
		pair, err := tls.LoadX509KeyPair(certificate, keys[number])
		check(err)
		config.Certificates = append(config.Certificates, pair)
	}
	addStaple(config)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
	check(err)
	fmt.Println("listening", listener.Addr())
	for {
		raw, err := listener.Accept()
		check(err)
		connection := raw.(*tls.Conn)
		if err := connection.Handshake(); err != nil {
			fmt.Println("error", err)
			connection.Close()
			continue
		}
		tell(connection.ConnectionState())
		io.Copy(connection, connection)
		connection.Close()
	}
}

// The label of an exporter, if what it gives is to be told.
var export string

func tell(state tls.ConnectionState) {
	if export != "" {
		material, err := state.ExportKeyingMaterial(export, []byte("context"), 100)
		check(err)
		fmt.Printf("protocol %s material %x\n", state.NegotiatedProtocol, material)
	}
	fmt.Println("group", uint16(state.CurveID))
	fmt.Println("ech", state.ECHAccepted, "resumed", state.DidResume)
	tellPeer(state)
}

func trust(config *tls.Config, ca, name string) {
	pem, err := os.ReadFile(ca)
	check(err)
	config.RootCAs = x509.NewCertPool()
	config.RootCAs.AppendCertsFromPEM(pem)
	config.ServerName = name
	config.ClientSessionCache = tls.NewLRUClientSessionCache(4)
}

func ask(config *tls.Config, address string) {
	connection, err := tls.Dial("tcp", address, config)
	rejected(err)
	check(err)
	tell(connection.ConnectionState())
	_, err = io.WriteString(connection, "hello\n")
	check(err)
	line, err := bufio.NewReader(connection).ReadString('\n')
	check(err)
	fmt.Print("answer ", line)
	connection.Close()
}

func main() {
	groups := flag.String("groups", "", "code points, comma-separated, by preference; Go's own when empty")
	certificates := flag.String("cert", "", "PEM chains, comma-separated")
	keys := flag.String("key", "", "their private keys")
	ca := flag.String("ca", "", "PEM authorities of a client")
	name := flag.String("name", "", "the server's name, of a client")
	connect := flag.String("connect", "", "be a client of this address")
	connections := flag.Int("connections", 1, "of a client, one after the other")
	noTickets := flag.Bool("no-tickets", false, "neither give nor take session tickets")
	ech := flag.String("ech", "", "ECHConfigList of a client, in base64")
	echCurrent := flag.String("ech-keys", "", "PEM files of a server's keys for Encrypted ClientHello, comma-separated")
	echOld := flag.String("ech-old-keys", "", "the same, of keys that clients are not told any more")
	alpn := flag.String("alpn", "", "application protocols, comma-separated")
	tls12 := flag.Bool("tls12", false, "TLS 1.2 and nothing else")
	flag.StringVar(&export, "export", "", "tell the protocol, and 100 bytes exported by this label")
	flag.Parse()
	// Nothing that these tests start may outlive them.
	time.AfterFunc(time.Minute, func() { os.Exit(3) })
	config := &tls.Config{MinVersion: tls.VersionTLS13, SessionTicketsDisabled: *noTickets}
	if *tls12 {
		config.MinVersion, config.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	}
	config.NextProtos = list(*alpn)
	for _, group := range list(*groups) {
		code, err := strconv.ParseUint(group, 0, 16)
		check(err)
		config.CurvePreferences = append(config.CurvePreferences, tls.CurveID(code))
	}
	if *connect == "" {
		echKeys(config, list(*echCurrent), true)
		echKeys(config, list(*echOld), false)
		askClients(config)
		serve(config, list(*certificates), list(*keys))
	}
	echConfigs(config, *ech)
	trust(config, *ca, *name)
	own(config, list(*certificates), list(*keys))
	for range *connections {
		ask(config, *connect)
	}
}
