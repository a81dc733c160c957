// The floor: MeCab, a hash, a dot product, and nothing else. One thread over one file of texts.
#include <dlfcn.h>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

typedef void *(*New)(int, char **);
typedef const char *(*Parse)(void *, const char *, size_t);

static uint32_t rotated(uint32_t x, int r) { return (x << r) | (x >> (32 - r)); }

static uint32_t murmur(const char *data, int length) {
  uint32_t h = 0, k;
  int blocks = length / 4;
  for (int i = 0; i < blocks; i++) {
    memcpy(&k, data + 4 * i, 4);
    h = rotated(h ^ (rotated(k * 0xcc9e2d51u, 15) * 0x1b873593u), 13) * 5 + 0xe6546b64u;
  }
  k = 0;
  memcpy(&k, data + 4 * blocks, length & 3);
  h ^= rotated(k * 0xcc9e2d51u, 15) * 0x1b873593u;
  h ^= length;
  h = (h ^ (h >> 16)) * 0x85ebca6bu;
  h = (h ^ (h >> 13)) * 0xc2b2ae35u;
  return h ^ (h >> 16);
}

// floor LIBRARY TEXTS WEIGHTS CLASSES COLUMNS MECAB_ARGUMENTS...
int main(int argc, char **argv) {
  void *library = dlopen(argv[1], RTLD_LAZY);
  if (!library) { fprintf(stderr, "%s\n", dlerror()); return 1; }
  New create = (New)dlsym(library, "mecab_new");
  Parse parse = (Parse)dlsym(library, "mecab_sparse_tostr2");
  void *tagger = create(argc - 4, argv + 4);
  if (!parse || !tagger) return 2;
  std::ifstream text_file(argv[2]), weight_file(argv[3], std::ios::binary);
  std::vector<std::string> texts;
  for (std::string line; std::getline(text_file, line);) texts.push_back(line);
  int classes = atoi(argv[4]), columns = 1 << 18;
  std::vector<double> weights((size_t)columns * classes);
  weight_file.read((char *)weights.data(), weights.size() * sizeof(double));
  std::vector<double> sums(classes);
  double answer = 0;
  auto started = std::chrono::steady_clock::now();
  for (const std::string &text : texts) {
    const char *at = parse(tagger, text.data(), text.size());
    std::fill(sums.begin(), sums.end(), 0.0);
    while (at && *at && *at != '\n') {
      const char *end = strchr(at, ' ');
      int32_t hash = (int32_t)murmur(at, end - at);
      const double *row = &weights[(size_t)(std::llabs((long long)hash) % columns) * classes];
      for (int c = 0; c < classes; c++) sums[c] += row[c];
      at = end + 1;
    }
    double total = 0, best = sums[0];
    for (double sum : sums) best = std::max(best, sum);
    for (double sum : sums) total += std::exp(sum - best);
    answer += 1 / total;
  }
  std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - started;
  printf("{\"seconds\": %f, \"rows\": %zu, \"check\": %f}\n", seconds.count(), texts.size(), answer);
}
