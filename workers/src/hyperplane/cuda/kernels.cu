// Mixing and projecting on the device: each stored byte is read once per use, and nothing is unpacked into memory. All tensors of a model batch in one launch.
// Compiled when the device is first used; needs no header.

typedef unsigned int u32;
typedef unsigned long long u64;

#define THREADS 256
// Values of one tensor that a block has, in a mix and in a projection.
#define MIXED 2048
#define PROJECTED 8192
// Values that share a scale, as in `compact.rs`.
#define GROUP 64

// How rows are stored, as `layout` in `cuda/mod.rs` counts.
#define F32 0
#define BF16 1
#define INT8 2
#define INT4 3

// One tensor of a model batch, as `lay` in `cuda/mod.rs` writes it.
struct Part {
  const u32* rows;              // [b, words]
  const unsigned short* scales; // [b, groups], bf16
  const float* base;            // [n], or null for zeros
  void* vector;                 // [n]: where a mix goes, or the gradient
  u64 n;
  u64 words;       // of a row
  u64 groups;      // of a row
  u64 narrow;      // whether the vector is in bf16
  u64 first_block; // of this tensor
};

__device__ __forceinline__ float bf16(unsigned short bits) { return __uint_as_float((u32)bits << 16); }

// To the nearest, ties to even; NaN stays one.
__device__ __forceinline__ unsigned short narrowed(float value) {
  const u32 bits = __float_as_uint(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) {
    return 0x7fc0;
  }
  return (unsigned short)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// The last tensor whose first block is not after this one: how many first blocks are not, counted by each warp for itself.
__device__ __forceinline__ u32 part_of_block(const Part* parts, u32 count) {
  u32 before = 0;
  for (u32 first = 0; first < count; first += 32) {
    const u32 i = first + (threadIdx.x & 31);
    before += __popc(__ballot_sync(0xffffffffu, i < count && parts[i].first_block <= blockIdx.x));
  }
  return before - 1;
}

// Values that a word of four bytes holds, and where they are in a row.
template <int LAYOUT>
struct Word;

template <>
struct Word<F32> {
  static const int VALUES = 1;
  static __device__ __forceinline__ u64 at(u64 word, int) { return word; }
  static __device__ __forceinline__ u64 group(u64) { return 0; }
  static __device__ __forceinline__ void decode(u32 word, float* values) { values[0] = __uint_as_float(word); }
};

template <>
struct Word<BF16> {
  static const int VALUES = 2;
  static __device__ __forceinline__ u64 at(u64 word, int j) { return 2 * word + j; }
  static __device__ __forceinline__ u64 group(u64) { return 0; }
  static __device__ __forceinline__ void decode(u32 word, float* values) {
    values[0] = __uint_as_float(word << 16);
    values[1] = __uint_as_float(word & 0xffff0000u);
  }
};

// A small whole number in the low bits of 2^23 as a float is that much more than 2^23: cheaper than a conversion.
template <>
struct Word<INT8> {
  static const int VALUES = 4;
  static __device__ __forceinline__ u64 at(u64 word, int j) { return 4 * word + j; }
  static __device__ __forceinline__ u64 group(u64 word) { return word / (GROUP / 4); }
  static __device__ __forceinline__ void decode(u32 word, float* values) {
    const u32 shifted = word ^ 0x80808080u;
#pragma unroll
    for (int j = 0; j < 4; j++) {
      values[j] = __uint_as_float(__byte_perm(shifted, 0x4b000000u, 0x7440 | j)) - 8388736.0f;
    }
  }
};

template <>
struct Word<INT4> {
  static const int VALUES = 8;
  // A group's byte j holds its values j and j + 32.
  static __device__ __forceinline__ u64 at(u64 word, int j) {
    return word / 8 * GROUP + (word % 8) * 4 + (j & 3) + (j >> 2) * (GROUP / 2);
  }
  static __device__ __forceinline__ u64 group(u64 word) { return word / (GROUP / 8); }
  static __device__ __forceinline__ void decode(u32 word, float* values) {
#pragma unroll
    for (int j = 0; j < 8; j++) {
      values[j] = __uint_as_float(0x4b000000u | ((word >> (8 * (j & 3) + 4 * (j >> 2))) & 15u)) - 8388616.0f;
    }
  }
};

template <int LAYOUT>
__device__ __forceinline__ float scale_of(const Part& part, u64 row, u64 word) {
  return LAYOUT == INT8 || LAYOUT == INT4 ? bf16(part.scales[row * part.groups + Word<LAYOUT>::group(word)]) : 1.0f;
}

// vector = base + sum_k x[k] rows[k], k ascending; x is [count, b].
template <int LAYOUT>
__device__ __forceinline__ void mix(const Part* parts, u32 count, const float* coordinates, u32 b) {
  extern __shared__ float x[];
  typedef Word<LAYOUT> W;
  const u32 which = part_of_block(parts, count);
  const Part part = parts[which];
  for (u32 k = threadIdx.x; k < b; k += THREADS) {
    x[k] = coordinates[(u64)which * b + k];
  }
  __syncthreads();
  const u64 first = (blockIdx.x - part.first_block) * (MIXED / W::VALUES) + threadIdx.x;
  for (u32 i = 0; i < MIXED / W::VALUES / THREADS; i++) {
    const u64 word = first + i * THREADS;
    if (word >= part.words) {
      return;
    }
    float sums[W::VALUES];
#pragma unroll
    for (int j = 0; j < W::VALUES; j++) {
      const u64 at = W::at(word, j);
      sums[j] = part.base != 0 && at < part.n ? part.base[at] : 0.0f;
    }
    const u32* row = part.rows + word;
#pragma unroll 8
    for (u32 k = 0; k < b; k++, row += part.words) {
      float values[W::VALUES];
      W::decode(*row, values);
      const float factor = x[k] * scale_of<LAYOUT>(part, k, word);
#pragma unroll
      for (int j = 0; j < W::VALUES; j++) {
        sums[j] += factor * values[j];
      }
    }
#pragma unroll
    for (int j = 0; j < W::VALUES; j++) {
      const u64 at = W::at(word, j);
      if (at < part.n) {
        if (part.narrow) {
          ((unsigned short*)part.vector)[at] = narrowed(sums[j]);
        } else {
          ((float*)part.vector)[at] = sums[j];
        }
      }
    }
  }
}

__device__ __forceinline__ float over_warp(float value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, offset);
  }
  return value;
}

// For each block and its values: <rows[k], vector> for all k, then |vector|^2; sums are [blocks, b + 1].
template <int LAYOUT>
__device__ __forceinline__ void project(const Part* parts, u32 count, float* sums, u32 b) {
  extern __shared__ float of_warps[]; // [b + 1, warps]
  typedef Word<LAYOUT> W;
  const int WORDS = PROJECTED / W::VALUES / THREADS, WARPS = THREADS / 32;
  const Part part = parts[part_of_block(parts, count)];
  const u64 first = (blockIdx.x - part.first_block) * (PROJECTED / W::VALUES) + threadIdx.x;
  const u32 warp = threadIdx.x / 32;
  const bool speaks = threadIdx.x % 32 == 0;
  float vector[WORDS][W::VALUES];
  float square = 0.0f;
#pragma unroll
  for (int i = 0; i < WORDS; i++) {
#pragma unroll
    for (int j = 0; j < W::VALUES; j++) {
      const u64 at = W::at(first + i * THREADS, j);
      float value = 0.0f;
      if (at < part.n) {
        value = part.narrow ? bf16(((const unsigned short*)part.vector)[at]) : ((const float*)part.vector)[at];
      }
      vector[i][j] = value;
      square += value * value;
    }
  }
  for (u32 k = 0; k < b; k++) {
    const u32* row = part.rows + k * part.words;
    float dot = 0.0f;
#pragma unroll
    for (int i = 0; i < WORDS; i++) {
      const u64 word = first + i * THREADS;
      if (word < part.words) {
        float values[W::VALUES];
        W::decode(row[word], values);
        float sum = 0.0f;
#pragma unroll
        for (int j = 0; j < W::VALUES; j++) {
          sum += values[j] * vector[i][j];
        }
        dot += scale_of<LAYOUT>(part, k, word) * sum;
      }
    }
    dot = over_warp(dot);
    if (speaks) {
      of_warps[k * WARPS + warp] = dot;
    }
  }
  square = over_warp(square);
  if (speaks) {
    of_warps[b * WARPS + warp] = square;
  }
  __syncthreads();
  for (u32 k = threadIdx.x; k <= b; k += THREADS) {
    float sum = 0.0f;
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
      sum += of_warps[k * WARPS + w];
    }
    sums[(u64)blockIdx.x * (b + 1) + k] = sum;
  }
}

// Sums over the blocks of each tensor, in their order: [count, b + 1].
extern "C" __global__ void finish(const Part* parts, u32 count, u32 blocks, const float* sums, double* out, u32 b) {
  const u64 i = (u64)blockIdx.x * THREADS + threadIdx.x;
  if (i >= (u64)count * (b + 1)) {
    return;
  }
  const u32 which = i / (b + 1), k = i % (b + 1);
  const u64 end = which + 1 < count ? parts[which + 1].first_block : blocks;
  double sum = 0.0;
#pragma unroll 8
  for (u64 block = parts[which].first_block; block < end; block++) {
    sum += sums[block * (b + 1) + k];
  }
  out[i] = sum;
}

#define ENTRIES(NAME, LAYOUT)                                                                                          \
  extern "C" __global__ void __launch_bounds__(THREADS) mix_##NAME(const Part* parts, u32 count, const float* x,      \
                                                                   u32 b) {                                           \
    mix<LAYOUT>(parts, count, x, b);                                                                                   \
  }                                                                                                                    \
  extern "C" __global__ void __launch_bounds__(THREADS) project_##NAME(const Part* parts, u32 count, float* sums,     \
                                                                       u32 b) {                                       \
    project<LAYOUT>(parts, count, sums, b);                                                                            \
  }

ENTRIES(f32, F32)
ENTRIES(bf16, BF16)
ENTRIES(int8, INT8)
ENTRIES(int4, INT4)
