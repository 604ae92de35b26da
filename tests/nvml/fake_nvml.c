/* A libnvidia-ml.so.1 without GPUs: what it says stands in the text file named by FAKE_NVML_STATE, read at every call.
 *
 * A line each, fields apart by one tab:
 *   driver  VERSION  CUDA                (CUDA as NVML has it: 12040)
 *   gpu     UUID  BUS_ID  TOTAL  USED  UTILIZATION  TEMPERATURE  MIG_MODE  NAME       in NVML's order
 *   mig     UUID  PARENT_UUID  NUMBER  TOTAL  USED  NAME
 *   process UUID  PID  MEMORY            (bytes, or "unknown"; of a gpu or a mig)
 *   error   UUID|*  FUNCTION|*  CODE     FUNCTION as in C, without a version suffix
 *   delay   UUID|*  FUNCTION|*  SECONDS
 * A value of -1 is one that the device doesn't support. A handle is the device's uuid, and lost when it isn't listed.
 */
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SUCCESS 0
#define NOT_SUPPORTED 3
#define NOT_FOUND 6
#define INSUFFICIENT_SIZE 7
#define DRIVER_NOT_LOADED 9
#define GPU_IS_LOST 15
#define INVALID_ARGUMENT 2
#define MOST 64
#define FIELDS 10

typedef const char *Device;
typedef struct { char busIdLegacy[16]; unsigned domain, bus, device, pciDeviceId, pciSubSystemId; char busId[32]; } Pci;
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned gpu, memory; } Rates;
typedef struct { unsigned pid; unsigned long long used; unsigned gi, ci; } Process;
typedef struct { unsigned sm, copy, dec, enc, jpeg, ofa, gpuSlices, computeSlices; unsigned long long memoryMB; } Attributes;

typedef struct { char *field[FIELDS]; } Line;
/* Each thread has its own copy: as with the real one, several may call at once. */
static _Thread_local char text[1 << 16];
static _Thread_local Line lines[1024];
static _Thread_local int count;

static int read_state(void) {
    const char *path = getenv("FAKE_NVML_STATE");
    FILE *file = path ? fopen(path, "r") : NULL;
    count = 0;
    if (!file) return 0;
    size_t size = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[size] = 0;
    char *rest = text, *line;
    while ((line = strsep(&rest, "\n")) && count < 1024) {
        memset(&lines[count], 0, sizeof lines[count]);
        for (int i = 0; i < FIELDS && line; i++) lines[count].field[i] = strsep(&line, "\t");
        if (lines[count].field[0] && *lines[count].field[0]) count++;
    }
    return 1;
}

static int is(Line *line, const char *kind, int place, const char *value) {
    return !strcmp(line->field[0], kind) && (place == 0 || !strcmp(line->field[place], value));
}

static Line *find(const char *kind, int place, const char *value) {
    for (int i = 0; i < count; i++)
        if (is(&lines[i], kind, place, value)) return &lines[i];
    return NULL;
}

static int applies(Line *line, const char *kind, const char *uuid, const char *function) {
    return is(line, kind, 0, "") && (!strcmp(line->field[1], "*") || !strcmp(line->field[1], uuid)) &&
           (!strcmp(line->field[2], "*") || !strcmp(line->field[2], function));
}

/* Read the state, wait and fail as it says. */
static int enter(const char *uuid, const char *function) {
    if (!read_state()) return DRIVER_NOT_LOADED;
    for (int i = 0; i < count; i++)
        if (applies(&lines[i], "delay", uuid, function)) {
            double seconds = atof(lines[i].field[3]);
            struct timespec pause = {(time_t)seconds, (long)((seconds - (time_t)seconds) * 1e9)};
            nanosleep(&pause, NULL);
        }
    for (int i = 0; i < count; i++)
        if (applies(&lines[i], "error", uuid, function)) return atoi(lines[i].field[3]);
    return SUCCESS;
}

#define ENTER(uuid, function) do { int code = enter(uuid, function); if (code) return code; } while (0)
/* The line of a device: a gpu's fields are 1 uuid 2 bus 3 total 4 used 5 utilization 6 temperature 7 mode 8 name,
 * a mig's 1 uuid 2 parent 3 number 4 total 5 used 6 name. */
#define DEVICE(line, isMig) \
    Line *line = find("gpu", 1, device); \
    int isMig = !line; \
    (void)isMig; \
    if (!line) line = find("mig", 1, device); \
    if (!line) return GPU_IS_LOST

static Device intern(const char *uuid) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static char *known[1024];
    int i = 0;
    pthread_mutex_lock(&lock);
    while (known[i] && strcmp(known[i], uuid)) i++;
    if (!known[i]) known[i] = strdup(uuid);
    pthread_mutex_unlock(&lock);
    return known[i];
}

static int give(char *out, unsigned size, const char *value) {
    if (strlen(value) >= size) return INSUFFICIENT_SIZE;
    strcpy(out, value);
    return SUCCESS;
}

int nvmlInitWithFlags(unsigned flags) { (void)flags; ENTER("*", "nvmlInit"); return SUCCESS; }
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int code) {
    return code == GPU_IS_LOST ? "GPU is lost" : code == NOT_SUPPORTED ? "Not Supported" : "a fake error";
}

int nvmlSystemGetDriverVersion(char *out, unsigned size) {
    ENTER("*", "nvmlSystemGetDriverVersion");
    Line *driver = find("driver", 0, "");
    return driver ? give(out, size, driver->field[1]) : DRIVER_NOT_LOADED;
}

int nvmlSystemGetCudaDriverVersion_v2(int *out) {
    ENTER("*", "nvmlSystemGetCudaDriverVersion");
    Line *driver = find("driver", 0, "");
    if (!driver) return DRIVER_NOT_LOADED;
    *out = atoi(driver->field[2]);
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *out) {
    ENTER("*", "nvmlDeviceGetCount");
    *out = 0;
    for (int i = 0; i < count; i++) *out += is(&lines[i], "gpu", 0, "");
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device *out) {
    if (!read_state()) return DRIVER_NOT_LOADED;
    for (int i = 0; i < count; i++)
        if (is(&lines[i], "gpu", 0, "") && index-- == 0) {
            *out = intern(lines[i].field[1]);
            ENTER(*out, "nvmlDeviceGetHandleByIndex");
            return SUCCESS;
        }
    return INVALID_ARGUMENT;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, Device *out) {
    Device device = intern(uuid);
    ENTER(device, "nvmlDeviceGetHandleByUUID");
    if (!find("gpu", 1, uuid) && !find("mig", 1, uuid)) return NOT_FOUND;
    *out = device;
    return SUCCESS;
}

int nvmlDeviceGetUUID(Device device, char *out, unsigned size) {
    ENTER(device, "nvmlDeviceGetUUID");
    DEVICE(line, isMig);
    return give(out, size, device);
}

int nvmlDeviceGetName(Device device, char *out, unsigned size) {
    ENTER(device, "nvmlDeviceGetName");
    DEVICE(line, isMig);
    return give(out, size, line->field[isMig ? 6 : 8]);
}

int nvmlDeviceGetPciInfo_v3(Device device, Pci *out) {
    ENTER(device, "nvmlDeviceGetPciInfo");
    DEVICE(line, isMig);
    if (isMig) return NOT_SUPPORTED;
    memset(out, 0, sizeof *out);
    sscanf(line->field[2], "%x:%x:%x", &out->domain, &out->bus, &out->device);
    snprintf(out->busIdLegacy, sizeof out->busIdLegacy, "%04X:%02X:%02X.0", out->domain & 0xffff, out->bus & 0xff, out->device & 0xff);
    return give(out->busId, sizeof out->busId, line->field[2]);
}

int nvmlDeviceGetMemoryInfo(Device device, Memory *out) {
    ENTER(device, "nvmlDeviceGetMemoryInfo");
    DEVICE(line, isMig);
    if (!strcmp(line->field[isMig ? 4 : 3], "-1")) return NOT_SUPPORTED;
    out->total = strtoull(line->field[isMig ? 4 : 3], NULL, 10);
    out->used = strtoull(line->field[isMig ? 5 : 4], NULL, 10);
    out->free = out->total - out->used;
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(Device device, Rates *out) {
    ENTER(device, "nvmlDeviceGetUtilizationRates");
    DEVICE(line, isMig);
    if (isMig || !strcmp(line->field[5], "-1")) return NOT_SUPPORTED;
    out->gpu = (unsigned)atoi(line->field[5]);
    out->memory = 0;
    return SUCCESS;
}

int nvmlDeviceGetTemperature(Device device, int sensor, unsigned *out) {
    (void)sensor;
    ENTER(device, "nvmlDeviceGetTemperature");
    DEVICE(line, isMig);
    if (isMig || !strcmp(line->field[6], "-1")) return NOT_SUPPORTED;
    *out = (unsigned)atoi(line->field[6]);
    return SUCCESS;
}

int nvmlDeviceGetMigMode(Device device, unsigned *current, unsigned *pending) {
    ENTER(device, "nvmlDeviceGetMigMode");
    DEVICE(line, isMig);
    if (isMig || !strcmp(line->field[7], "-1")) return NOT_SUPPORTED;
    *current = *pending = (unsigned)atoi(line->field[7]);
    return SUCCESS;
}

int nvmlDeviceGetMaxMigDeviceCount(Device device, unsigned *out) {
    ENTER(device, "nvmlDeviceGetMaxMigDeviceCount");
    DEVICE(line, isMig);
    *out = 7;
    return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(Device device, unsigned index, Device *out) {
    ENTER(device, "nvmlDeviceGetMigDeviceHandleByIndex");
    DEVICE(line, isMig);
    for (int i = 0; i < count; i++)
        if (is(&lines[i], "mig", 2, device) && (unsigned)atoi(lines[i].field[3]) == index) {
            *out = intern(lines[i].field[1]);
            return SUCCESS;
        }
    return NOT_FOUND;
}

int nvmlDeviceGetAttributes_v2(Device device, Attributes *out) {
    ENTER(device, "nvmlDeviceGetAttributes");
    DEVICE(line, isMig);
    if (!isMig) return NOT_SUPPORTED;
    memset(out, 0, sizeof *out);
    out->gpuSlices = out->computeSlices = 1;
    out->memoryMB = strtoull(line->field[4], NULL, 10) >> 20;
    return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(Device device, unsigned *size, Process *out) {
    ENTER(device, "nvmlDeviceGetComputeRunningProcesses");
    DEVICE(line, isMig);
    unsigned room = *size, found = 0;
    for (int i = 0; i < count; i++)
        if (is(&lines[i], "process", 1, device)) {
            if (out && found < room) {
                const char *memory = lines[i].field[3];
                memset(&out[found], 0, sizeof *out);
                out[found].pid = (unsigned)atoi(lines[i].field[2]);
                out[found].used = strcmp(memory, "unknown") ? strtoull(memory, NULL, 10) : ULLONG_MAX;
            }
            found++;
        }
    *size = found;
    return found > (out ? room : 0) ? INSUFFICIENT_SIZE : SUCCESS;
}
