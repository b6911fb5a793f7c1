// What libtorch's allocators say of themselves, and events on a device: tch has no call for them. Needs c10 alone, so that it links where CUDA is not installed.

#include <c10/core/Allocator.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace {

// Null where the device's library is not loaded.
c10::DeviceAllocator* cuda_allocator() {
  auto* allocator = dynamic_cast<c10::DeviceAllocator*>(c10::GetAllocator(c10::DeviceType::CUDA));
  return allocator != nullptr && allocator->initialized() ? allocator : nullptr;
}

// Writes down what is allocated and freed on one device by the thread that it is pushed on, and by those that libtorch lets work for it.
class Watch : public c10::MemoryReportingInfoBase {
 public:
  explicit Watch(c10::DeviceType type) : type(type) {}

  void reportMemoryUsage(void*, int64_t bytes, size_t, size_t, c10::Device device) override {
    if (device.type() == type) {
      const std::lock_guard<std::mutex> lock(mutex);
      changes.push_back(bytes);
    }
  }
  bool memoryProfilingEnabled() const override { return true; }

  const c10::DeviceType type;
  std::mutex mutex;
  std::vector<int64_t> changes;
};

}  // namespace

extern "C" {

struct mehl_soup_memory {
  int64_t allocated;
  int64_t reserved;
  int64_t peak;
  int64_t free;
  int64_t total;
};

// 0, or 1 where there is nobody to ask. `free` and `total` are 0 where the allocator does not tell, or is not asked: the driver takes its time to.
int mehl_soup_cuda_memory(int index, int ask_device, mehl_soup_memory* out) {
  try {
    auto* allocator = cuda_allocator();
    if (allocator == nullptr) {
      return 1;
    }
    const auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    const auto device = static_cast<c10::DeviceIndex>(index);
    const auto stats = allocator->getDeviceStats(device);
    out->allocated = stats.allocated_bytes[all].current;
    out->reserved = stats.reserved_bytes[all].current;
    out->peak = stats.allocated_bytes[all].peak;
    out->free = 0;
    out->total = 0;
    if (ask_device == 0) {
      return 0;
    }
    try {
      const auto info = allocator->getMemoryInfo(device);
      out->free = static_cast<int64_t>(info.first);
      out->total = static_cast<int64_t>(info.second);
    } catch (...) {
    }
    return 0;
  } catch (...) {
    return 1;
  }
}

int mehl_soup_cuda_reset_peak(int index) {
  try {
    auto* allocator = cuda_allocator();
    if (allocator == nullptr) {
      return 1;
    }
    allocator->resetPeakStats(static_cast<c10::DeviceIndex>(index));
    return 0;
  } catch (...) {
    return 1;
  }
}

// Gives back what the allocator keeps for later.
int mehl_soup_cuda_empty_cache() {
  try {
    auto* allocator = cuda_allocator();
    if (allocator == nullptr) {
      return 1;
    }
    allocator->emptyCache();
    return 0;
  } catch (...) {
    return 1;
  }
}

// Begins to watch what this thread does on the host, or on CUDA devices; null where it cannot be. Ended by the same thread.
void* mehl_soup_watch(int cuda) {
  try {
    auto watch = std::make_shared<Watch>(cuda != 0 ? c10::DeviceType::CUDA : c10::DeviceType::CPU);
    c10::ThreadLocalDebugInfo::_push(c10::DebugInfoKind::PROFILER_STATE, watch);
    return new std::shared_ptr<Watch>(std::move(watch));
  } catch (...) {
    return nullptr;
  }
}

// Ends the watch and answers how many changes it has seen.
size_t mehl_soup_watch_end(void* handle) {
  auto& watch = **static_cast<std::shared_ptr<Watch>*>(handle);
  try {
    c10::ThreadLocalDebugInfo::_pop(c10::DebugInfoKind::PROFILER_STATE);
  } catch (...) {
  }
  const std::lock_guard<std::mutex> lock(watch.mutex);
  return watch.changes.size();
}

// The first `count` changes of a watch that has ended: bytes allocated, below 0 where they were freed.
void mehl_soup_watch_changes(void* handle, int64_t* out, size_t count) {
  auto& watch = **static_cast<std::shared_ptr<Watch>*>(handle);
  const std::lock_guard<std::mutex> lock(watch.mutex);
  std::copy_n(watch.changes.begin(), std::min(count, watch.changes.size()), out);
}

void mehl_soup_watch_free(void* handle) {
  delete static_cast<std::shared_ptr<Watch>*>(handle);
}

// An event in the device's current stream; null where there is none.
void* mehl_soup_cuda_event(int index) {
  try {
    const c10::Device device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index));
    const c10::impl::VirtualGuardImpl backend(c10::DeviceType::CUDA);
    // The backend's own events can be timed; PyTorch's default ones cannot.
    auto event = std::make_unique<c10::Event>(c10::DeviceType::CUDA, c10::EventFlag::BACKEND_DEFAULT);
    event->record(backend.getStream(device));
    return event.release();
  } catch (...) {
    return nullptr;
  }
}

// Seconds between two events; waits for the later one. 0 if that cannot be told.
double mehl_soup_cuda_event_seconds(const void* from, const void* to) {
  try {
    const auto* end = static_cast<const c10::Event*>(to);
    end->synchronize();
    return static_cast<const c10::Event*>(from)->elapsedTime(*end) / 1e3;
  } catch (...) {
    return 0.0;
  }
}

void mehl_soup_cuda_event_free(void* event) {
  delete static_cast<c10::Event*>(event);
}
}
