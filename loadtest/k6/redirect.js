// Redirects at a constant arrival rate, for those who use k6:
//
//   k6 run -e TARGET=http://127.0.0.1:8080 -e SLUGS=slugs.txt -e RATE=1000 redirect.js
//
// SLUGS is a file of lines `slug` or `slug<TAB>destination`, as written by
// `waypost-loadtest --save-slugs`. Also: DURATION (30s), VUS (200), P50_MS (10),
// P99_MS (50), ERRORS (0.0001), ZIPF (1.0).

import http from 'k6/http';
import { check } from 'k6';
import { SharedArray } from 'k6/data';

const TARGET = __ENV.TARGET || 'http://127.0.0.1:8080';
const RATE = Number(__ENV.RATE || 1000);
const ZIPF = Number(__ENV.ZIPF || 1.0);

if (!__ENV.SLUGS) {
  throw new Error('SLUGS is missing: a file of slugs, one a line');
}

const links = new SharedArray('links', () =>
  open(__ENV.SLUGS)
    .split('\n')
    .filter((line) => line)
    .map((line) => {
      const [slug, longUrl] = line.split('\t');
      return { slug, longUrl };
    }),
);

// Sums of 1/rank^ZIPF: a uniform draw falls into a link's part as often as the
// link is popular. Shared, so that it is worked out once and not per VU.
const sums = new SharedArray('sums', () => {
  let sum = 0;
  return Array.from({ length: links.length }, (_, index) => (sum += 1 / (index + 1) ** ZIPF));
});

export const options = {
  discardResponseBodies: true,
  summaryTrendStats: ['avg', 'min', 'p(50)', 'p(90)', 'p(95)', 'p(99)', 'p(99.9)', 'max'],
  scenarios: {
    redirect: {
      // An open model: iterations start on time, whatever the answers do. A
      // start that finds no free VU is dropped, and the threshold below tells.
      executor: 'constant-arrival-rate',
      rate: RATE,
      timeUnit: '1s',
      duration: __ENV.DURATION || '30s',
      preAllocatedVUs: Number(__ENV.VUS || 200),
    },
  },
  thresholds: {
    http_req_duration: [`p(50)<=${__ENV.P50_MS || 10}`, `p(99)<=${__ENV.P99_MS || 50}`],
    checks: [`rate>=${1 - Number(__ENV.ERRORS || 0.0001)}`],
    dropped_iterations: ['count==0'],
  },
};

function popular() {
  const wanted = Math.random() * sums[sums.length - 1];
  let low = 0;
  let high = sums.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sums[middle] < wanted) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return links[low];
}

export default function () {
  const link = popular();
  // One name for all links: a series of metrics for each would fill the memory.
  const answer = http.get(`${TARGET}/${link.slug}`, {
    redirects: 0,
    responseCallback: http.expectedStatuses({ min: 301, max: 308 }),
    tags: { name: 'redirect' },
  });
  check(answer, {
    'is a redirect': (r) => [301, 302, 303, 307, 308].includes(r.status),
    'leads to the link': (r) => !link.longUrl || r.headers.Location === link.longUrl,
  });
}
