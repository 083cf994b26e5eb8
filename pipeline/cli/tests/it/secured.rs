//! Kafka, registry and ClickHouse that demand TLS, a trusted certificate and a password: with the right ones everything
//! runs, with a wrong one the part and the remedy are named.
//!
//! Kafka has a listener with SASL over TLS. HAProxy ends the TLS of the other two, and asks for the registry's password;
//! the ClickHouse front asks for its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use weir_replay::parts::{Parts, PartsOptions, Ports};

use crate::program::{Bench, Done, WEIR, parts, wait_until};
use crate::shop::shop;

const USER: &str = "weir";
const PASSWORD: &str = "right: and \"quoted\"";

/// Certificates of an authority made for one test.
struct Authority {
    folder: tempfile::TempDir,
}

impl Authority {
    /// An authority, and a server's certificate for the loopback that it signed.
    fn make() -> Authority {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").unwrap();
        let key = "-newkey rsa:2048 -nodes";
        for command in [
            format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=weir-test"),
            format!("req {key} -keyout server.key -out server.csr -subj /CN=localhost"),
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.crt -days 2 -extfile names"
                .to_owned(),
        ] {
            let done = Command::new("openssl").args(command.split(' ')).current_dir(folder.path()).output();
            let done = Done::of(done.expect("openssl (replay/parts/packages.sh installs it)"));
            assert_eq!(done.code, 0, "{}", done.err);
        }
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        std::fs::write(folder.path().join("server.pem"), read("server.key") + &read("server.crt")).unwrap();
        Authority { folder }
    }

    /// The authority's own certificate.
    fn trusted(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Key and certificate of the server.
    fn server(&self) -> PathBuf {
        self.folder.path().join("server.pem")
    }
}

/// Servers that let nobody in without a password.
struct Secured {
    authority: Authority,
    brokers: String,
    registry: String,
    clickhouse: String,
    proxy: Child,
    _parts: Parts,
    _folder: tempfile::TempDir,
}

impl Secured {
    fn start() -> Secured {
        let authority = Authority::make();
        let folder = tempfile::tempdir().unwrap();
        let ports_of = |name: &str| {
            let folder = folder.path().join(name);
            std::fs::create_dir_all(&folder).unwrap();
            Ports::of_folder(&folder).unwrap()
        };
        let (own, doors) = (ports_of("own"), ports_of("doors"));
        let settings = folder.path().join("server.properties");
        std::fs::write(&settings, kafka_settings(&authority.server(), own.kafka, doors.kafka)).unwrap();
        let started = Parts::start(&PartsOptions {
            folder: folder.path().join("parts"),
            kafka: true,
            clickhouse: true,
            ports: Some(own),
            kafka_settings: Some(settings),
            front: [
                "env",
                &format!("WEIR_CLICKHOUSE_USER={USER}"),
                &format!("WEIR_CLICKHOUSE_PASSWORD={PASSWORD}"),
                WEIR,
                "clickhouse",
            ]
            .map(Into::into)
            .to_vec(),
            quick: true,
            ..PartsOptions::default()
        });
        let config = folder.path().join("haproxy.cfg");
        std::fs::write(&config, proxy_settings(&authority.server(), own.clickhouse, doors)).unwrap();
        let proxy = Command::new("haproxy")
            .env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()))
            .args(["-db", "-f"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("haproxy (replay/parts/packages.sh installs it)");
        wait_until("the proxy listens", || std::net::TcpStream::connect(("127.0.0.1", doors.registry)).is_ok());
        Secured {
            authority,
            brokers: format!("127.0.0.1:{}", doors.kafka),
            registry: format!("https://127.0.0.1:{}/apis/ccompat/v7", doors.registry),
            clickhouse: format!("https://127.0.0.1:{}", doors.clickhouse),
            proxy,
            _parts: started.unwrap(),
            _folder: folder,
        }
    }

    /// A command of the program, with what it needs to know to get in.
    fn command(&self, bench: &Bench, arguments: &[&str]) -> Command {
        let mut command = bench.command(arguments);
        command
            .env("BROKERS", &self.brokers)
            .env("REGISTRY", &self.registry)
            .env("CLICKHOUSE", &self.clickhouse)
            .env("WEIR_KAFKA", &self.brokers)
            .env("WEIR_REGISTRY", &self.registry)
            .env("WEIR_REGISTRY_USER", USER)
            .env("WEIR_REGISTRY_PASSWORD", PASSWORD);
        for name in ["KAFKA_PASSWORD", "REGISTRY_PASSWORD", "CLICKHOUSE_PASSWORD"] {
            command.env(name, PASSWORD);
        }
        for name in ["KAFKA_CA", "REGISTRY_CA", "CLICKHOUSE_CA"] {
            command.env(name, self.authority.trusted());
        }
        command
    }

    fn weir(&self, bench: &Bench, arguments: &[&str]) -> Done {
        Done::of(self.command(bench, arguments).output().unwrap())
    }
}

impl Drop for Secured {
    fn drop(&mut self) {
        let _ = self.proxy.kill();
        let _ = self.proxy.wait();
    }
}

/// A listener at `door` beside the plain one that the broker itself needs.
fn kafka_settings(certificate: &Path, port: u16, door: u16) -> String {
    let listeners =
        format!("PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{},SASL_SSL://127.0.0.1:{door}", port + 1);
    format!(
        "listeners={listeners}\n\
         advertised.listeners={listeners}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL\n\
         sasl.enabled.mechanisms=PLAIN\n\
         listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule \
         required user_{USER}=\"{}\";\n\
         ssl.keystore.type=PEM\n\
         ssl.keystore.location={}\n",
        // Once for the login configuration, once for the properties file.
        PASSWORD.replace('"', "\\\\\""),
        certificate.display()
    )
}

fn proxy_settings(certificate: &Path, clickhouse: u16, doors: Ports) -> String {
    let registry = parts().registry();
    let registry = registry.strip_prefix("http://").and_then(|rest| rest.split('/').next()).unwrap().to_owned();
    let certificate = certificate.display();
    format!(
        "global\n  maxconn 200\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 300s\n  timeout server 300s\n\
         userlist people\n  user {USER} insecure-password \"{password}\"\n\
         frontend registry\n  bind 127.0.0.1:{} ssl crt {certificate}\n\
         \x20 http-request auth realm registry unless {{ http_auth(people) }}\n\
         \x20 http-request del-header authorization\n  default_backend registry\n\
         backend registry\n  server one {registry}\n\
         frontend clickhouse\n  bind 127.0.0.1:{} ssl crt {certificate}\n  default_backend clickhouse\n\
         backend clickhouse\n  server one 127.0.0.1:{clickhouse}\n",
        doors.registry,
        doors.clickhouse,
        password = PASSWORD.replace('"', "\\\"")
    )
}

/// The shop's pipeline, with TLS and passwords for everything.
fn secured_shop() -> Bench {
    let bench = shop("secured");
    let kafka = "brokers = \"${BROKERS}\"\n[kafka.settings]\n\"security.protocol\" = \"sasl_ssl\"\n\
                 \"sasl.mechanism\" = \"PLAIN\"\n\"sasl.username\" = \"weir\"\n\"sasl.password\" = \"${KAFKA_PASSWORD}\"\n\
                 \"ssl.ca.location\" = \"${KAFKA_CA}\"";
    bench.edit("brokers = \"${BROKERS}\"", kafka);
    for (part, name) in [("registry", "REGISTRY"), ("clickhouse", "CLICKHOUSE")] {
        let url = format!("url = \"${{{name}}}\"");
        let more = format!("{url}\nuser = \"weir\"\npassword = \"${{{name}_PASSWORD}}\"\nca_file = \"${{{name}_CA}}\"");
        bench.edit(&format!("[{part}]\n{url}"), &format!("[{part}]\n{more}"));
    }
    bench
}

#[test]
fn servers_that_demand_tls_and_passwords_get_them_and_a_wrong_one_is_named() {
    let (mut bench, secured) = (secured_shop(), Secured::start());
    let ca = secured.authority.trusted().display().to_string();
    let (ca_setting, password) = (format!("ssl.ca.location={ca}"), format!("sasl.password={PASSWORD}"));
    let mut produce = vec!["produce", "--topic", &bench.topic, "--partitions", "2", "--storefront"];
    produce.extend(["--from", "2026-01-05T06:00:00Z", "--events-per-second", "100", "--event-timestamps"]);
    produce.extend(["--count", "5000", "--registry-ca", &ca]);
    for setting in ["security.protocol=sasl_ssl", "sasl.mechanism=PLAIN", "sasl.username=weir", &password, &ca_setting]
    {
        produce.extend(["--kafka-setting", setting]);
    }
    secured.weir(&bench, &produce).fine();
    secured.weir(&bench, &["check", "pipeline.toml"]).fine();
    secured.weir(&bench, &["run", "pipeline.toml", "--until-end"]).fine();
    let verified = secured.weir(&bench, &["verify", "pipeline.toml"]).fine().out;
    assert!(verified.contains("equal"), "{verified}");

    bench.anew("secured");
    let other = Authority::make();
    let untrusted = other.trusted().display().to_string();
    for (name, value, words) in [
        ("KAFKA_PASSWORD", "wrong", ["kafka at", &secured.brokers, "uthentication", "kafka.settings"]),
        ("KAFKA_CA", &untrusted, ["kafka at", &secured.brokers, "certificate", "kafka.settings"]),
        ("REGISTRY_PASSWORD", "wrong", ["registry at", &secured.registry, "credentials", "[registry]"]),
        ("REGISTRY_CA", &untrusted, ["registry at", &secured.registry, "certificate", "[registry]"]),
        ("CLICKHOUSE_PASSWORD", "wrong", ["ClickHouse", "Authentication failed", "clickhouse.user", "password"]),
        ("CLICKHOUSE_CA", &untrusted, ["ClickHouse", &secured.clickhouse, "certificate", "clickhouse.ca_file"]),
    ] {
        let done = Done::of(secured.command(&bench, &["run", "pipeline.toml"]).env(name, value).output().unwrap());
        println!("{name}: {}", done.err.trim());
        done.refused(3, &words);
    }
}
