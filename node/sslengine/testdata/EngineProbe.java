/*
 * Copyright The Castellan Authors.
 * SPDX-License-Identifier: Apache-2.0
 */

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.cert.X509Certificate;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

import javax.net.ssl.SSLEngine;
import javax.net.ssl.SSLEngineResult;
import javax.net.ssl.SSLEngineResult.HandshakeStatus;
import javax.net.ssl.SSLException;

import org.apache.kafka.common.security.auth.SslEngineFactory;

/**
 * Drives the factory for sslengine_test.go: one TLS server, and one command a line on stdin with one line of answer.
 * Arguments: factory class, key file, trust file.
 */
public class EngineProbe {
    private static SslEngineFactory factory;
    private static Map<String, Object> configs;

    public static void main(String[] args) throws Exception {
        configs = new HashMap<>(Map.of(
            "ssl.protocol", "TLSv1.3", "ssl.enabled.protocols", List.of("TLSv1.3"), "ssl.cipher.suites", List.of(),
            "ssl.client.auth", "required", "ssl.endpoint.identification.algorithm", "https",
            "ssl.keystore.type", "PEM", "ssl.keystore.location", args[1],
            "ssl.truststore.type", "PEM", "ssl.truststore.location", args[2]));
        factory = (SslEngineFactory) Class.forName(args[0]).getDeclaredConstructor().newInstance();
        factory.configure(configs);
        ServerSocket server = new ServerSocket(0, 16, InetAddress.getLoopbackAddress());
        Thread acceptor = new Thread(() -> accept(server), "acceptor");
        acceptor.setDaemon(true);
        acceptor.start();
        System.out.println("port " + server.getLocalPort());
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            System.out.println(answer(line.split(" ")));
        }
    }

    private static String answer(String[] command) throws Exception {
        switch (command[0]) {
            case "dial":
                return dial(Integer.parseInt(command[1]));
            case "stores":
                X509Certificate leaf = (X509Certificate) factory.keystore().getCertificate(factory.keystore().aliases().nextElement());
                return leaf.getSerialNumber() + " " + factory.truststore().size();
            case "rebuild":
                return String.valueOf(factory.shouldBeRebuilt(configs));
            case "rebuild-other":
                Map<String, Object> other = new HashMap<>(configs);
                other.put("ssl.client.auth", "none");
                return String.valueOf(factory.shouldBeRebuilt(other));
            case "cost":
                return cost(Integer.parseInt(command[1]));
            default:
                throw new IllegalArgumentException(command[0]);
        }
    }

    private static String cost(int engines) {
        long start = System.nanoTime();
        for (int i = 0; i < engines; i++) {
            factory.createServerSslEngine("127.0.0.1", 1);
        }
        return String.valueOf((System.nanoTime() - start) / engines);
    }

    private static String dial(int port) throws IOException {
        try (Socket socket = new Socket(InetAddress.getLoopbackAddress(), port)) {
            SSLEngine engine = factory.createClientSslEngine("127.0.0.1", port, "https");
            handshake(engine, socket);
            return "ok " + ((X509Certificate) engine.getSession().getPeerCertificates()[0]).getSerialNumber();
        } catch (SSLException e) {
            return "refused " + e.getMessage().replace('\n', ' ');
        }
    }

    private static void accept(ServerSocket server) {
        while (true) {
            try (Socket socket = server.accept()) {
                SSLEngine engine = factory.createServerSslEngine("127.0.0.1", socket.getPort());
                handshake(engine, socket);
                ByteBuffer out = ByteBuffer.allocate(engine.getSession().getPacketBufferSize());
                engine.wrap(ByteBuffer.wrap("hello\n".getBytes(StandardCharsets.UTF_8)), out);
                socket.getOutputStream().write(out.array(), 0, out.position());
            } catch (IOException e) {
                // The peer sees it as a failed handshake, which is what the test looks at.
            }
        }
    }

    private static void handshake(SSLEngine engine, Socket socket) throws IOException {
        ByteBuffer in = ByteBuffer.allocate(1 << 16).flip();
        ByteBuffer out = ByteBuffer.allocate(1 << 16);
        ByteBuffer app = ByteBuffer.allocate(1 << 16);
        engine.beginHandshake();
        for (HandshakeStatus status = engine.getHandshakeStatus(); status != HandshakeStatus.NOT_HANDSHAKING; status = engine.getHandshakeStatus()) {
            switch (status) {
                case NEED_TASK:
                    engine.getDelegatedTask().run();
                    break;
                case NEED_WRAP:
                    send(engine, socket, out);
                    break;
                default:
                    receive(engine, socket, in, out, app);
            }
        }
    }

    private static void send(SSLEngine engine, Socket socket, ByteBuffer out) throws IOException {
        engine.wrap(ByteBuffer.allocate(0), out.clear());
        socket.getOutputStream().write(out.array(), 0, out.position());
    }

    private static void receive(SSLEngine engine, Socket socket, ByteBuffer in, ByteBuffer out, ByteBuffer app) throws IOException {
        try {
            SSLEngineResult result = engine.unwrap(in, app.clear());
            if (result.getStatus() != SSLEngineResult.Status.BUFFER_UNDERFLOW) {
                return;
            }
        } catch (SSLException e) {
            send(engine, socket, out); // the alert
            throw e;
        }
        in.compact();
        int n = socket.getInputStream().read(in.array(), in.position(), in.remaining());
        if (n < 0) {
            throw new SSLException("peer closed the connection");
        }
        in.position(in.position() + n).flip();
    }
}
