// A TLS 1.3 peer over Go's standard library, for the interop tests: a server, or with -connect a client.
//
// It says which address it listens on, then per connection "group 4588" (the code point) once the handshake is
// complete, or "error ..." when it fails. The server sends back what it receives. The client sends one line and
// prints the answer.
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
	"strings"
	"time"
)

func check(err error) {
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
}

func serve(config *tls.Config, certificate, key string) {
	pair, err := tls.LoadX509KeyPair(certificate, key)
	check(err)
	config.Certificates = []tls.Certificate{pair}
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
		fmt.Println("group", uint16(connection.ConnectionState().CurveID))
		io.Copy(connection, connection)
		connection.Close()
	}
}

func ask(config *tls.Config, address, ca, name string) {
	pem, err := os.ReadFile(ca)
	check(err)
	config.RootCAs = x509.NewCertPool()
	config.RootCAs.AppendCertsFromPEM(pem)
	config.ServerName = name
	connection, err := tls.Dial("tcp", address, config)
	check(err)
	fmt.Println("group", uint16(connection.ConnectionState().CurveID))
	_, err = io.WriteString(connection, "hello\n")
	check(err)
	line, err := bufio.NewReader(connection).ReadString('\n')
	check(err)
	fmt.Print("answer ", line)
	connection.Close()
}

func main() {
	groups := flag.String("groups", "", "code points, comma-separated, by preference; Go's own when empty")
	certificate := flag.String("cert", "", "PEM chain of a server")
	key := flag.String("key", "", "its private key")
	ca := flag.String("ca", "", "PEM authorities of a client")
	name := flag.String("name", "", "the server's name, of a client")
	connect := flag.String("connect", "", "be a client of this address")
	flag.Parse()
	// Nothing that these tests start may outlive them.
	time.AfterFunc(time.Minute, func() { os.Exit(3) })
	config := &tls.Config{MinVersion: tls.VersionTLS13}
	for _, group := range strings.FieldsFunc(*groups, func(r rune) bool { return r == ',' }) {
		code, err := strconv.ParseUint(group, 0, 16)
		check(err)
		config.CurvePreferences = append(config.CurvePreferences, tls.CurveID(code))
	}
	if *connect != "" {
		ask(config, *connect, *ca, *name)
	} else {
		serve(config, *certificate, *key)
	}
}
