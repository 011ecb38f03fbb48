module tcpls.test/peer

go 1.24
