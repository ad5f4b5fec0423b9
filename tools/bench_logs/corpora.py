"""Lines like those of real systems, the same for every run: of a web server, and of what runs in a cluster."""

import bisect
import itertools
import random

STREAMS = 7


class Skewed:
    """Draws from values of which the first are drawn most (Zipf)."""

    def __init__(self, rnd, values, exponent=1.1):
        self.rnd, self.values = rnd, values
        self.sums = list(itertools.accumulate(1 / (i + 1) ** exponent for i in range(len(values))))

    def draw(self):
        return self.values[bisect.bisect_left(self.sums, self.rnd.random() * self.sums[-1])]


WORDS = [a + b for a in ("ba", "co", "di", "fe", "gru", "hal", "jo", "kir", "lum", "mo", "ner", "pa", "qui", "ro", "sta", "tre", "vil", "wen", "xo", "zu")
         for b in ("bel", "cken", "don", "fir", "gan", "hem", "kus", "lin", "mar", "nox", "per", "rin", "sol", "tam", "vex", "zor")]


def agents(rnd):
    out = []
    for _ in range(600):
        chrome = f"{rnd.randint(60, 120)}.0.{rnd.randint(2000, 6000)}.{rnd.randint(10, 200)}"
        kind = rnd.random()
        if kind < 0.45:
            model = f"{rnd.choice(['SAMSUNG SM-', 'HUAWEI ', 'LG-', 'Redmi Note '])}{rnd.choice('AGJN')}{rnd.randint(100, 990)}{rnd.choice('FHG')}"
            out.append(f"Mozilla/5.0 (Linux; Android {rnd.randint(5, 13)}.{rnd.randint(0, 1)}; {model} Build/{rnd.choice(['M1AJQ', 'R16NW', 'NRD90M', 'MMB29K'])}) "
                       f"AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{chrome} Mobile Safari/537.36")
        elif kind < 0.75:
            out.append(f"Mozilla/5.0 (Windows NT {rnd.choice(['6.1', '6.3', '10.0'])}; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{chrome} Safari/537.36")
        elif kind < 0.9:
            v = f"{rnd.randint(10, 16)}_{rnd.randint(0, 6)}"
            out.append(f"Mozilla/5.0 (iPhone; CPU iPhone OS {v} like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/{v.replace('_', '.')} Mobile/15E148 Safari/604.1")
        else:
            bot = rnd.choice(["Googlebot/2.1; +http://www.google.com/bot.html", "bingbot/2.0; +http://www.bing.com/bingbot.htm", "AhrefsBot/6.1; +http://ahrefs.com/robot/"])
            out.append(f"Mozilla/5.0 (compatible; {bot})")
    return out


def access(lines, seed=1, ids=False):
    """nginx's combined format: sessions of skewed clients that load pages with their images."""
    rnd = random.Random(seed)
    agent = Skewed(rnd, agents(rnd))
    client = Skewed(rnd, [f"{rnd.randint(2, 220)}.{rnd.randint(0, 255)}.{rnd.randint(0, 255)}.{rnd.randint(1, 254)}" for _ in range(30000)], 0.8)

    def title():
        words = [rnd.choice(WORDS) for _ in range(rnd.randint(2, 6))]
        return "-".join("".join(f"%D8%{ord(c) + 32:X}" for c in w[:4]) if rnd.random() < 0.4 else w for w in words)

    product = Skewed(rnd, [f"/product/{rnd.randint(1000, 70000)}/{rnd.randint(1000, 70000)}/{title()}" for _ in range(20000)], 0.9)
    listing = Skewed(rnd, [f"/{rnd.choice(['browse', 'filter', 'm/browse'])}/{rnd.choice(WORDS)}/{title()}" for _ in range(3000)])
    sessions, at = [], 0.0
    for n in range(lines):
        at += rnd.expovariate(60)
        if len(sessions) < 40 or rnd.random() < 0.03:
            sessions.append([client.draw(), agent.draw(), "-", None])
            if len(sessions) > 400:
                sessions.pop(rnd.randrange(len(sessions)))
        s = sessions[min(int(rnd.expovariate(0.04)), len(sessions) - 1)]
        kind = rnd.random()
        if s[3] is not None and kind < 0.68:
            number = s[3] + int(rnd.expovariate(0.35))
            what = rnd.choice(("productModel/150x150", "productModel/200x200", "article/100x100", "brand"))
            path, referer, size = f"/image/{number}/{what}", s[2], 800 + number * 7919 % 60000
        elif kind < 0.82:
            asset = rnd.choice(("css/font/wyekan/font.woff", "images/guarantees/bestPrice.png", "images/next.png", "js/app.min.js", "images/amp/telegram.png"))
            path, referer, size = f"/static/{asset}", s[2], 500 + len(asset) * 1237
        else:
            page = product.draw() if rnd.random() < 0.6 else listing.draw()
            if rnd.random() < 0.15:
                page += f"?page={rnd.randint(1, 40)}"
            path, referer, size = page, s[2], 8000 + len(page) * 7919 % 82000
            s[2], s[3] = "https://www.example-shop.com" + page, rnd.randint(100, 68000)
        status = rnd.choices((200, 304, 301, 302, 404, 499, 500), (88, 4, 3, 2, 2, 0.7, 0.3))[0]
        second = int(at)
        time = f"26/Jan/2019:{second // 3600 % 24:02}:{second // 60 % 60:02}:{second % 60:02} +0330"
        line = f'{s[0]} - - [{time}] "GET {path} HTTP/1.1" {status} {size} "{referer}" "{s[1]}" "-"'
        if ids:
            line += " trace_id=%032x span_id=%016x" % (rnd.getrandbits(128), rnd.getrandbits(64))
        yield line


def cluster(lines, seed=2):
    """An agent, journald, a broker and controllers, as they log in a cluster."""
    rnd = random.Random(seed)
    pods = [f"{rnd.choice(WORDS)}-{rnd.choice(WORDS)}-{rnd.getrandbits(36):09x}-{rnd.getrandbits(20):05x}" for _ in range(400)]
    at = 0.0
    for n in range(lines):
        at += rnd.expovariate(200)
        second, ms = int(at), int(at * 1000) % 1000
        clock = f"{second // 3600 % 24:02}:{second // 60 % 60:02}:{second % 60:02}"
        pod, kind = rnd.choice(pods), n % 5
        if kind == 0:
            yield (f"ts=2024-04-16T{clock}.{rnd.randrange(10**9):09}Z caller=filetargetmanager.go:{rnd.choice((181, 361, 371))} level={rnd.choice(('info', 'info', 'debug', 'warn'))} "
                   f"component=logs logs_config=default msg=\"{rnd.choice(('Adding target', 'Removing target', 'tail routine: exited'))}\" "
                   f"key=\"/var/log/pods/*{rnd.getrandbits(32):08x}-{rnd.getrandbits(16):04x}-4{rnd.getrandbits(12):03x}-8{rnd.getrandbits(12):03x}-{rnd.getrandbits(48):012x}/{pod.split('-')[0]}/*.log\"")
        elif kind == 1:
            yield (f"I0416 {clock}.{ms:03}{rnd.randrange(1000):03}    {rnd.choice((2776, 3091, 1))} reconciler_common.go:{rnd.choice((258, 300))}] \"operationExecutor.{rnd.choice(('MountVolume', 'UnmountVolume'))} started for volume "
                   f"\\\"kube-api-access-{rnd.getrandbits(25):05x}\\\" (UniqueName: \\\"kubernetes.io/projected/{rnd.getrandbits(32):08x}-kube-api-access\\\") pod \\\"{pod}\\\"\" pod=\"default/{pod}\"")
        elif kind == 2:
            offset = rnd.randrange(10**9)
            yield (f"[2024-04-16 {clock},{ms:03}] INFO [LocalLog partition=mimir-dev-09-aggregations-offsets-{rnd.randrange(60)}, dir=/bitnami/kafka/data] Deleting segment files "
                   f"LogSegment(baseOffset={offset}, size={rnd.randrange(10**6)}, lastModifiedTime=17132{rnd.randrange(10**8):08}, largestRecordTimestamp=Some(17132{rnd.randrange(10**8):08})) (kafka.log.LocalLog$)")
        elif kind == 3:
            yield (f'{{"level":"{rnd.choice(("info", "info", "info", "error"))}","ts":"2024-04-16T{clock}.{ms:03}Z","logger":"controller.{rnd.choice(("replicaset", "deployment", "node"))}",'
                   f'"msg":"{rnd.choice(("Reconciling", "Finished syncing", "Observed a change", "Requeueing after a conflict"))}","namespace":"default","name":"{pod}","duration":"{rnd.expovariate(0.2):.6f}ms","revision":{n * 3 + rnd.randrange(3)}}}')
        else:
            yield (f"level=debug ts=2024-04-16T{clock}.{ms:03}Z caller=broadcast.go:48 msg=\"Invalidating forwarded broadcast\" key=collectors/{rnd.choice(('compactor', 'ring', 'distributor'))} "
                   f"version={rnd.randrange(200)} oldVersion={rnd.randrange(200)} content=[{pod}] oldContent=[{rnd.choice(pods)}] took={rnd.expovariate(2):.3f}s bytes={rnd.randrange(90000)}")


CORPORA = {
    "access": lambda lines: access(lines),
    "cluster": lambda lines: cluster(lines),
    "access with ids": lambda lines: access(lines, ids=True),
}
