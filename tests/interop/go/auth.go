package main

import (
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"os"
)

var (
	clientAuth = flag.String("client-auth", "none", "what a server wants of clients: none, request, require")
	clientCA   = flag.String("client-ca", "", "PEM authorities of clients")
)

// Of a server.
func askClients(config *tls.Config) {
	switch *clientAuth {
	case "request":
		config.ClientAuth = tls.VerifyClientCertIfGiven
	case "require":
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	if *clientCA != "" {
		pem, err := os.ReadFile(*clientCA)
		check(err)
		config.ClientCAs = x509.NewCertPool()
		config.ClientCAs.AppendCertsFromPEM(pem)
	}
}

// Of a client.
func own(config *tls.Config, certificates, keys []string) {
	for number, certificate := range certificates {
		pair, err := tls.LoadX509KeyPair(certificate, keys[number])
		check(err)
		config.Certificates = append(config.Certificates, pair)
	}
}

func tellPeer(state tls.ConnectionState) {
	for _, certificate := range state.PeerCertificates {
		fmt.Println("peer", certificate.Subject.CommonName)
	}
}
