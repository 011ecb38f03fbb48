package main

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"os"
)

var (
	clientAuth = flag.String("client-auth", "none", "what a server wants of clients: none, request, require")
	staple     = flag.String("ocsp", "", "a server's OCSP response, for its first certificate")
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

func addStaple(config *tls.Config) {
	if *staple != "" {
		response, err := os.ReadFile(*staple)
		check(err)
		config.Certificates[0].OCSPStaple = response
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
	fmt.Printf("staple %x\n", sha256.Sum256(state.OCSPResponse))
	for _, certificate := range state.PeerCertificates {
		fmt.Println("peer", certificate.Subject.CommonName)
	}
}
